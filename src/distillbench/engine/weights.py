"""Weights on disk: reading, writing, digests."""

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import torch

from distillbench.config import components
from distillbench.config.specification import read_specification
from distillbench.data import trained_on
from distillbench.errors import UserError
from distillbench.files import write_atomically
from distillbench.methods import build_method, method_class
from distillbench.methods.base import Context, Method
from distillbench.models import build_network
from distillbench.store.record import read_record


def save_tensors(path, content):
    """Write a structure of tensors and plain values atomically; the bytes depend on the content alone."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_tensors(path):
    """Read what `save_tensors` or the predecessors wrote, on the CPU. No code in the file is ever executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: not a readable weights file ({reason})") from None


def weights_digest(state_dict):
    """SHA-256 over names, types, shapes and bytes: the same for the same weights in any container."""
    digest = hashlib.sha256()
    for name, tensor in state_dict.items():
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def load_run(directory, checkpoint, images=None):
    """(specification, network, weights digest) of a finished run.

    checkpoint: "last" or "best"; images: `data.Images`, for a method that leaves more than its student.
    Raises UserError if the run is not there or its weights are not those that its record names.
    """
    directory = Path(directory)
    specification = read_specification(directory / "spec.json")
    path = directory / f"model.{checkpoint}.pt"
    content = load_tensors(path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UserError(f'{path}: not a weights file, expected {{"model": state_dict}}')
    labels = np.zeros(0, np.int64) if images is None else images.train_labels
    labels = torch.from_numpy(labels[trained_on(labels, specification["dataset"]["protocol"])])
    network, digest = deployed_network(specification, labels), weights_digest(content["model"])
    try:
        network.load_state_dict(content["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        what = f"{specification['student']['network']} for {specification['dataset']['name']}"
        if not _method_class(specification):
            what += f", and the file of method {specification['method']['name']} is not here as it was"
        raise UserError(f"{path}: not the weights of {what} ({reason[:300]})") from None
    if digest != read_record(directory / "record.json")["weights"].get(checkpoint):
        raise UserError(f"{path}: not the weights that record.json names; restore the file or remove the run")
    return specification, network, digest


def deployed_network(specification, labels=()):
    """The network that a run leaves, without its weights: the student, or what its method makes of it.

    Of a method in a file that is not in use, not as it was, or not importable here, it is the student.
    """
    name = specification["dataset"]["name"]
    _require_network(specification)
    dataset, student = components.datasets()[name], build_network(specification["student"]["network"], name)
    method = _method_class(specification)
    if not method or method.deployed is Method.deployed:
        return student
    teacher = specification["teacher"] and build_network(specification.teacher_network, name)
    context = Context(dataset["num_classes"], dataset["image_size"], labels, specification["seed"], student, teacher)
    return build_method(specification, context).deployed(student)


def _require_network(specification):
    """Raise UserError unless a network of the user's own or of a library is here as it was when the run was planned."""
    stated, run = specification["student"], specification.id
    declared = components.network(stated["network"], specification["dataset"]["name"])
    if declared.get("sha256") != stated.get("source_sha256"):
        what = f"{stated['network']} is not as it was when {run} was planned"
        raise UserError(f"{declared.get('file', 'the package')}: {what}; restore the file, or plan and train again")
    if "library" in declared and declared["version"] != stated["version"]:
        what = f"{stated['network']} is that of version {stated['version']}, {declared['version']} is installed"
        raise UserError(f"{run}: {what}; install that version, or plan and train again")


def _method_class(specification):
    """The class of a run's method, or None where its file is not here as it was."""
    method = specification["method"]
    declared = components.methods().get(method["name"])
    if declared is None or declared.get("sha256") != method.get("source_sha256"):
        return None
    try:
        return method_class(method["name"])
    except UserError:  # what it imports is not here
        return None


def load_teacher(specification, runs):
    """(frozen network, weights digest) of a run's teacher, or (None, None) where it has none."""
    teacher = specification["teacher"]
    if teacher is None:
        return None, None
    if teacher["kind"] != "run":
        raise UserError(f"a teacher of kind {teacher['kind']!r} cannot be loaded yet; only teachers that are runs")
    made_by, network, digest = load_run(Path(runs) / teacher["id"], teacher["checkpoint"])
    if made_by.id != teacher["id"]:
        raise UserError(f"{Path(runs) / teacher['id']}: holds another run, {made_by.id}")
    return network.requires_grad_(False).eval(), digest

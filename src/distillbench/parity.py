"""Parity: this code against reference vectors that were obtained by running the official repositories.

A folder of reference vectors has the parts losses/METHOD/CASE, losses_integration/STUDENT__TEACHER/METHOD,
models/DICT__NAME and optim/CASE, each case a JSON description with arrays beside it in an .npz. Values agree if
|a - b| <= atol + rtol * max|b| over an array; the tolerances below are those stated with the vectors.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from distillbench.config import components
from distillbench.config.resolve import flatten, resolve
from distillbench.config.specification import build_specification
from distillbench.engine.run import learning_rate
from distillbench.engine.trainers import base, dot
from distillbench.errors import UserError
from distillbench.files import read_json
from distillbench.methods import build_method
from distillbench.methods.base import Batch, Context, Output
from distillbench.methods.kd import kd_loss
from distillbench.models import build_network

LOSS = {"float64": (1e-9, 1e-11), "float32": (1e-5, 2e-6)}  # dtype: (rtol, atol)
GRADIENT = {"float64": (1e-8, 1e-10), "float32": (1e-4, 2e-5)}
MODEL = (1e-8, 1e-10)
INTEGRATION, INTEGRATION_GRADIENT = (1e-8, 1e-10), (1e-7, 1e-10)
OPTIMIZER = {"float64": (1e-12, 1e-13), "float32": (1e-5, 1e-6)}
SCHEDULE = (1e-14, 0.0)

# Name of a method in the vectors: what it is here, as the keys of a params file.
METHODS = {
    "KD": {"DISTILLER.TYPE": "KD"},
    "KD_in_GKD_repo": {"DISTILLER.TYPE": "KD", "DEFAULTS": "gkd"},
    "GradientKD": {"DISTILLER.TYPE": "GradientKD"},
    "DKD": {"DISTILLER.TYPE": "DKD"},
    "DKD_GKD": {"DISTILLER.TYPE": "DKD", "GKD": {}},
}


class Mismatch(Exception):
    """A value that is not the reference's."""


class NotCovered(Exception):
    """A case that this version has no counterpart for."""


def check_folder(folder):
    """Check every case of a folder and print a line each; returns 1 if any differs or nothing was compared, else 0."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected reference vectors (losses/, models/, optim/, ...)")
    counts, uncovered = Counter(), Counter()
    for path in sorted(folder.rglob("*.json")):
        relative = path.relative_to(folder)
        try:
            number = check_case(path, relative)
        except NotCovered as reason:
            uncovered[str(reason)] += 1
        except Mismatch as error:
            counts["differ"] += 1
            print(f"DIFFERS  {relative}: {error}")
        else:
            counts["agree"] += 1
            print(f"agrees   {relative} ({number} arrays)")
    for what, number in sorted(uncovered.items()):
        print(f"not covered yet: {what} ({number} file{'s' if number > 1 else ''})")
    print(f"{counts['agree']} agree, {counts['differ']} differ, {sum(uncovered.values())} not covered yet")
    return 0 if counts["agree"] and not counts["differ"] else 1


def check_case(path, relative):
    """Compare one case; returns the number of arrays compared. Raises Mismatch or NotCovered."""
    part = relative.parts[0]
    if path.name == "INDEX.json":
        raise NotCovered("the indexes, which hold no numbers")
    if part == "losses" and len(relative.parts) == 3:
        return check_loss(path, relative.parts[1])
    if part == "losses_integration" and len(relative.parts) == 3:
        return check_integration(path)
    if part == "models" and path.name.endswith(".structure.json"):
        return check_structure(read_json(path))
    if part == "models" and path.name.endswith(".parity.json"):
        return check_model(path)
    if part == "optim" and path.name.startswith("lr_schedule"):
        return check_schedule(read_json(path))
    if part == "optim":
        return check_trainer(path)
    raise NotCovered(part if len(relative.parts) > 1 else relative.name)


def compare(name, ours, reference, tolerance):
    """Raises Mismatch unless two arrays agree. Where the official code overflowed, any value will do."""
    ours = np.asarray(ours.detach() if isinstance(ours, torch.Tensor) else ours, dtype=np.float64)
    reference = np.asarray(reference, dtype=np.float64)
    if ours.shape != reference.shape:
        raise Mismatch(f"{name}: shape {ours.shape}, reference {reference.shape}")
    rtol, atol = tolerance
    stated = np.isfinite(reference)
    allowed = atol + rtol * np.abs(reference[stated]).max(initial=0.0)
    difference = np.abs(ours - reference)[stated].max(initial=0.0)
    if not difference <= allowed:
        raise Mismatch(f"{name}: off by {difference:.3g}, allowed {allowed:.3g}")


def check_loss(path, method_name):
    if method_name not in METHODS:
        raise NotCovered(f"losses of {method_name}")
    description, arrays = read_json(path), load_arrays(path)
    method = reference_method(method_name, description, arrays["in.logits_student"].shape[1])
    dtype = description["dtype"]
    count = 0
    for epoch in description["epochs"] or [None]:
        suffix = f"@epoch{epoch}" if epoch else ""
        logits = torch.from_numpy(arrays["in.logits_student"]).requires_grad_()
        target = torch.from_numpy(arrays["in.target"])
        teacher = Output(torch.from_numpy(arrays["in.logits_teacher"]), {})
        schedule = {
            name: torch.tensor(value, dtype=logits.dtype) for name, value in method.schedule(epoch or 1).items()
        }
        losses = method.losses(Output(logits, {}), teacher, Batch((), target, target), schedule)
        losses["total"] = sum(losses.values())
        for name, loss in losses.items():
            compare(f"loss_{name}{suffix}", loss, arrays[f"out.loss_{name}{suffix}"], LOSS[dtype])
            (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
            compare(
                f"grad.{name}{suffix}",
                gradient,
                arrays[f"grad.{name}.logits_student{suffix}"],
                GRADIENT[dtype],
            )
            count += 2
    return count


def reference_method(name, description, num_classes):
    """The method that a case describes, built as a run would build it."""
    keys = METHODS[name]
    node = keys["DISTILLER.TYPE"]
    hyperparameters = {key: value for key, value in description["hyperparameters"].items() if key != "hard_coded"}
    resolved = resolve((), flatten({**keys, node: hyperparameters}, str(name)))
    config = resolved.config.clone()
    config.defrost()
    config.DATASET.TYPE = next(iter(components.datasets()))
    specification = build_specification(config, scaled=resolved.scaled, teacher=None, seed=0)
    return build_method(specification, Context(num_classes, 0, None, None))


def check_integration(path):
    """A whole student and teacher with filled weights: losses, logits and gradient norms per parameter."""
    if path.stem not in METHODS:
        raise NotCovered(f"losses of {path.stem}")
    description, arrays = read_json(path), load_arrays(path)
    student, teacher = (network(description[side], description[f"{side}_fill"]) for side in ("student", "teacher"))
    method = reference_method(description["method"], description, num_classes=100)
    shape, stream = description["image"]["shape"], description["image"]["s"]
    images, target = filled_images(shape, stream), torch.tensor(description["target"])
    student.train(), teacher.eval()
    count = 0
    for epoch in description["epochs"]:
        suffix = f"@epoch{epoch}" if f"out.loss_kd@epoch{epoch}" in arrays else ""
        output = Output(*student(images))
        with torch.no_grad():
            soft = Output(*teacher(images))
        schedule = {name: torch.tensor(value, dtype=torch.float64) for name, value in method.schedule(epoch).items()}
        losses = method.losses(output, soft, Batch((images,), target, target), schedule)
        compare(f"logits{suffix}", output.logits, arrays[f"out.logits_student{suffix}"], INTEGRATION)
        for name, loss in losses.items():
            compare(f"loss_{name}{suffix}", loss, arrays[f"out.loss_{name}{suffix}"], INTEGRATION)
            gradients = torch.autograd.grad(loss, list(student.parameters()), retain_graph=True)
            norms = [gradient.norm().item() for gradient in gradients]
            compare(f"grad_l2.{name}{suffix}", norms, arrays[f"grad_l2.{name}{suffix}"], INTEGRATION_GRADIENT)
            sums = [gradient.sum().item() for gradient in gradients]
            compare(f"grad_sum.{name}{suffix}", sums, arrays[f"grad_sum.{name}{suffix}"], INTEGRATION_GRADIENT)
            count += 3
    return count


def check_structure(description):
    """State-dict keys in their order, shapes, number of parameters, feature shapes."""
    model = known_network(description["model_dict"], description["name"], description["num_classes"])
    expected = [(entry["key"], tuple(entry["shape"])) for entry in description["state_dict"]]
    actual = [(key, tuple(tensor.shape)) for key, tensor in model.state_dict().items()]
    if actual != expected:
        wrong = next(
            (pair for pair in zip(actual, expected, strict=False) if pair[0] != pair[1]),
            (len(actual), len(expected)),
        )
        raise Mismatch(f"state_dict: {wrong[0]}, reference {wrong[1]}")
    trainable = sum(parameter.numel() for parameter in model.parameters())
    compare("num_trainable_parameters", trainable, description["num_trainable_parameters"], (0.0, 0.0))
    features = model.eval()(torch.zeros(description["input_shape_used"]))[1]
    shapes = {k: [list(f.shape) for f in v] if isinstance(v, list) else list(v.shape) for k, v in features.items()}
    if shapes != description["feats_shapes"]:
        raise Mismatch(f"features: {shapes}, reference {description['feats_shapes']}")
    return len(expected)


def check_model(path):
    """Forward passes in evaluation and training mode, gradients, and the batch statistics after one forward."""
    description, arrays = read_json(path), load_arrays(path)
    known_network(description["model_dict"], description["name"], 1)
    model = network(description["name"], description["fill"], description["model_dict"])
    images = filled_images(description["fill"]["input_shape"], description["fill"]["s"])
    for mode in ("eval", "train"):
        model.train(mode == "train")
        logits, features = model(images)
        compare(f"{mode}.logits", logits, arrays[f"{mode}.logits"], MODEL)
        flat = {"pooled_feat": features["pooled_feat"]}
        flat |= {f"{kind}.{i}": f for kind in ("feats", "preact_feats") for i, f in enumerate(features[kind])}
        for name, feature in flat.items():
            stated = description[mode]["feats"][name]
            moments = [feature.mean(), feature.std(correction=0), feature.min(), feature.max()]
            compare(
                f"{mode}.{name}",
                torch.stack(moments),
                [stated[k] for k in ("mean", "std", "min", "max")],
                MODEL,
            )
            first = feature.contiguous().flatten()[:16]
            compare(f"{mode}.first16.{name}", first, arrays[f"{mode}.first16.{name}"], MODEL)
    loss = F.cross_entropy(logits, torch.tensor(description["train"]["targets"]))
    compare("train.cross_entropy", loss, description["train"]["cross_entropy"], MODEL)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    compare("train.ce_grad_l2", torch.stack([g.norm() for g in gradients]), arrays["train.ce_grad_l2"], MODEL)
    compare("train.ce_grad_sum", torch.stack([g.sum() for g in gradients]), arrays["train.ce_grad_sum"], MODEL)
    state = model.state_dict()
    for kind in ("running_mean", "running_var", "num_batches_tracked"):
        sums = [tensor.sum().item() for key, tensor in state.items() if key.endswith(kind)]
        name = kind if kind == "num_batches_tracked" else f"{kind}_sum"
        compare(f"train.after.{name}", sums, arrays[f"train.after.{name}"], MODEL)
    return len(arrays)


def known_network(model_dict, name, num_classes):
    if model_dict != "cifar_model_dict" or name not in components.networks():
        raise NotCovered(f"network {name} of {model_dict}")
    return build_network(name, num_classes)


def network(name, fill, model_dict="cifar_model_dict"):
    """The network in float64, its state filled by the rule of the reference vectors."""
    model = known_network(model_dict, name, 100).double()
    state = model.state_dict()
    for i, (key, tensor) in enumerate(state.items()):
        r = noise(i, tensor.numel(), fill["s"]).reshape(tensor.shape)
        if key.endswith("num_batches_tracked"):
            r = np.zeros(tensor.shape)
        elif key.endswith("running_var"):
            r = 1 + 0.25 * r
        elif key.endswith(("running_mean", "bias")):
            r = 0.1 * r
        elif tensor.dim() == 1:
            r = fill["gamma_base"] + 0.2 * r
        else:
            r = np.sqrt(fill["gain"] / (tensor.numel() // tensor.shape[0])) * r
        tensor.copy_(torch.from_numpy(r))
    return model


def filled_images(shape, stream):
    pixels = noise(65536, int(np.prod(shape)), stream).reshape(shape)
    return torch.from_numpy(pixels + noise(65537, shape[0] * shape[1], stream).reshape(*shape[:2], 1, 1))


def noise(entry, number, stream):
    """r(i, j, s) of the fill rule for j < number: a hash of the position to numbers in (-1, 1)."""
    h = np.arange(number, dtype=np.uint64) * 2654435761 + entry * 2246822519 + stream * 3266489917 + 374761393
    mask = np.uint64(0xFFFFFFFF)
    h = h & mask
    h = ((h ^ (h >> np.uint64(15))) * np.uint64(2246822519)) & mask
    h = ((h ^ (h >> np.uint64(13))) * np.uint64(3266489917)) & mask
    h = h ^ (h >> np.uint64(16))
    return 2 * (h.astype(np.float64) + 0.5) / 2**32 - 1


def check_schedule(description):
    schedule = {key.upper(): value for key, value in description.items() if key == "lr"}
    schedule |= {"LR_DECAY_STAGES": description["decay_stages"], "LR_DECAY_RATE": description["decay_rate"]}
    rates = [learning_rate(schedule, epoch) for epoch in range(1, description["epochs"] + 1)]
    compare("lr_per_epoch", rates, description["lr_per_epoch"], SCHEDULE)
    return 1


TRAINERS = {"torch.optim.SGD": base.Trainer, "DistillationOrientedTrainer": dot.Trainer}  # by the first word
BUFFERS = {"momentum_buffer": "task", "momentum_kd_buffer": "distillation"}  # of DOT


def check_trainer(path):
    """Steps of a trainer, under given gradients or with a small network: parameters and buffers after each."""
    description, arrays = read_json(path), load_arrays(path)
    kind = description["optimizer"].split()[0]
    if kind not in TRAINERS:
        raise NotCovered(f"optimizer {kind}")
    settings = {key.upper(): value for key, value in description["hyperparameters"].items()}
    tolerance = OPTIMIZER[description["dtype"]]
    names = [name.removeprefix("param.") for name in arrays if name.startswith("param.")]
    parameters = {name: torch.nn.Parameter(torch.from_numpy(arrays[f"param.{name}"][0].copy())) for name in names}
    trainer = TRAINERS[kind](list(parameters.values()), settings, settings)
    losses = _mlp_losses if description.get("kind") == "mlp" else _given_losses
    for step in range(len(arrays[f"param.{names[0]}"]) - 1):
        if "lr" in arrays:
            trainer.lr.fill_(float(arrays["lr"][step]))
        trainer.update(losses(arrays, step, parameters, settings))
        for i, (name, parameter) in enumerate(parameters.items()):
            compare(f"param.{name}[{step + 1}]", parameter, arrays[f"param.{name}"][step + 1], tolerance)
            if kind == "torch.optim.SGD":
                stated = arrays[f"momentum_buffer.{name}"][step]
                compare(f"momentum_buffer.{name}[{step}]", trainer.buffers[i], stated, tolerance)
                continue
            for theirs, ours in BUFFERS.items():
                if arrays[f"has_{theirs}.{name}"][step + 1]:
                    stated = arrays[f"{theirs}.{name}"][step + 1]
                    compare(f"{theirs}.{name}[{step + 1}]", trainer.buffers[ours][i], stated, tolerance)
    return len(arrays)


def _given_losses(arrays, step, parameters, settings):
    """Losses whose gradients are those that a case states."""
    losses = {"ce": torch.zeros(()), "kd": torch.zeros(())}
    for loss, kind in (("ce", "grad" if "grad.w1" in arrays else "grad_task"), ("kd", "grad_kd")):
        for name, parameter in parameters.items():
            if f"{kind}.{name}" in arrays and arrays.get(f"has_{kind}.{name}", np.ones(step + 1))[step]:
                losses[loss] = losses[loss] + (parameter * torch.from_numpy(arrays[f"{kind}.{name}"][step])).sum()
    return losses


def _mlp_losses(arrays, step, parameters, settings):
    """Cross entropy and KD of the two-layer network that a case describes."""
    x, y, soft = (torch.from_numpy(arrays[f"in.{name}"][step]) for name in ("x", "y", "teacher_logits"))
    hidden = F.relu(F.linear(x, parameters["w1"], parameters["b1"]))
    logits = F.linear(hidden, parameters["w2"], parameters["b2"])
    return {
        "ce": settings["CE_WEIGHT"] * F.cross_entropy(logits, y),
        "kd": settings["KD_WEIGHT"] * kd_loss(logits, soft, settings["T"]),
    }


def load_arrays(path):
    path = Path(str(path).removesuffix(".json") + ".npz")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; every case is a .json with its .npz") from None

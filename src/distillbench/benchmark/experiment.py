"""What a benchmark trains: a pair of networks and a method as a specification, on CIFAR-100's shapes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from distillbench.benchmark.archive import Archive
from distillbench.benchmark.ladder import Rung
from distillbench.config import components
from distillbench.config.resolve import flatten, resolve
from distillbench.config.specification import build_specification
from distillbench.engine.feed import Feed, Split
from distillbench.engine.streams import generator, initialisation
from distillbench.engine.weights import weights_digest
from distillbench.errors import UserError, one_of
from distillbench.models import build_network, calibrate
from distillbench.store.tables import header_of, key_of

DATASET = "cifar100"
RATE = 0.0001  # of all rungs: at the published 0.05 rounding grows tenfold a step, which no gate can tell from an error
EPOCH = 100  # steps are those of epochs from here on: every warm-up is over
CALIBRATION = 64  # random images from which a teacher has its running statistics
SURENESS = 10  # by which its logits are enlarged: it is sure of some images, and methods that ask for that differ


class Size(NamedTuple):
    """How much is done. images: of the archive; resident: of them, what the resident rungs train on and a table holds;
    gated: images of a gate's batch; rounds: of measuring, of so many seconds a rung each; batch: images of a step.
    """

    images: int = 50_000
    resident: int = 50_000
    gated: int = 64
    rounds: int = 6
    seconds: float = 5.0
    batch: int = 64


class Job(NamedTuple):
    """What a process of a rung is told. folder: holds `RESIDENT`, `TEACHER` and `TABLE`; upstream: a checkout."""

    pair: tuple
    method: str
    rung: Rung
    device: str
    archive: Archive
    folder: Path
    size: Size
    upstream: str | None = None

    @property
    def specification(self):
        return specification(self.pair, self.method, self.rung.precision, self.rung.threads or 1)


RESIDENT, TEACHER, TABLE = "resident.npz", "teacher.pt", "table.logits"  # of a job's folder


def keys_of(method):
    """Configuration keys of a method as people write it: KD, KD+GKD, KD+DOT. Raises UserError."""
    name, *others = method.split("+")
    if name not in components.methods():
        raise UserError(f"--methods: {one_of(name, components.methods(), 'method')}")
    if components.methods()[name]["teacher"] == "none":
        raise UserError(f"--methods: {name} has no teacher; the benchmark is of distillation")
    if components.methods()[name]["views"] != 1:
        raise UserError(f"--methods: {name} takes several views of an image, which the plain loop does not make")
    trainers = {trainer.upper(): trainer for trainer, declared in components.trainers().items() if declared["label"]}
    keys = {"DISTILLER.TYPE": name}
    for other in others:
        if other in components.transforms():
            keys[components.transforms()[other]["node"]] = {}
        elif other in trainers:
            keys["SOLVER.TRAINER"] = trainers[other]
        else:
            raise UserError(f"--methods: {one_of(other, [*components.transforms(), *trainers], f'part of {method}')}")
    return keys


def specification(pair, method, precision, threads):
    """pair: (teacher, student). Raises UserError for what cannot be combined."""
    networks = components.networks(DATASET)
    for network in pair:
        if network not in networks:
            raise UserError(f"--pairs: {one_of(network, networks, 'network')}")
    base = {"DATASET.TYPE": DATASET, "DISTILLER.STUDENT": pair[1], "SOLVER.LR": RATE}
    base |= {"SOLVER.PRECISION": precision, "SOLVER.THREADS": threads}
    written = flatten({**base, **keys_of(method)}, "the benchmark")
    config, transforms, _ = resolve((), written)
    teacher = {"kind": "run", "id": f"{DATASET}/{pair[0]}/none/s0-{'0' * 12}", "checkpoint": "last"}
    return build_specification(config, transforms=transforms, teacher=teacher, seed=0)


def write_teacher(network, path):
    """Weights of a teacher that was never trained, whose activations and logits have the size of a trained one's."""
    with initialisation(0, "teacher"):
        teacher = build_network(network, DATASET)
    calibrate(teacher, torch.randn(CALIBRATION, 3, 32, 32, generator=generator(0, "calibration")))
    *_, classifier = (module for module in teacher.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        classifier.weight *= SURENESS
    torch.save(teacher.state_dict(), path)


def teacher_of(job):
    teacher = build_network(job.pair[0], DATASET).requires_grad_(False).eval()
    teacher.load_state_dict(torch.load(job.folder / TEACHER, weights_only=True))
    return teacher.to(job.device)


def student_of(job):
    """As a run begins."""
    with initialisation(0, "student"):
        return build_network(job.pair[1], DATASET).to(job.device)


def write_resident(path, images, labels, count):
    np.savez(path, images=images[:count], labels=labels[:count])


def split_of(job, specification):
    with np.load(job.folder / RESIDENT) as arrays:
        return Split.put(arrays["images"], arrays["labels"], specification, torch.device(job.device))


def feed_of(job, specification):
    return Feed(split_of(job, specification), specification["views"], specification["seed"])


def parts(feed, begin, size):
    """Yield sizes of batches without end, at the beginning of each epoch after a call of `begin` with its number."""
    epoch = EPOCH
    while True:
        begin(epoch)
        yield from (min(size, len(feed) - start) for start in range(0, len(feed), size))
        epoch += 1


def table_header(specification, teacher, feed):
    """Of a table of the resident images."""
    header = header_of(specification, key_of(specification), weights_digest(teacher.state_dict()))
    return {**header, "shape": [len(feed), *header["shape"][1:]]}

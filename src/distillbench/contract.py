"""What every method has to keep, the package's and a user's own: `distillbench check FILE` and the tests run it."""

import math
from functools import cache

import torch

from distillbench.config import components
from distillbench.config.resolve import flatten, resolve
from distillbench.config.specification import build_specification
from distillbench.data import Images
from distillbench.data.digits import arrays
from distillbench.engine.feed import epoch_plan, fetch
from distillbench.engine.learner import Learner, averages
from distillbench.engine.run import put_images
from distillbench.engine.streams import initialisation
from distillbench.engine.weights import weights_digest
from distillbench.errors import UserError
from distillbench.methods import method_class
from distillbench.models import build_network

TEACHER = {"kind": "run", "id": "digits/resnet8/none/s0-000000000000", "checkpoint": "last"}
NUM_IMAGES, BATCH = 300, 32
EPOCHS = (1, 2, 10**6)  # the last is behind every warm-up


class Broken(Exception):
    """A rule that a method does not keep: what happened and what would be right."""


def check_method(name, report=print):
    """Try every rule on a method, in all its combinations with GKD and the trainers; returns the number broken.

    Raises UserError if the method's file cannot be imported or does not fit its declaration.
    """
    broken = 0
    torch.set_num_threads(1)  # as runs have by default; more only get into each other's way at this size
    method_class(name)
    for combination, keys in combinations(name).items():
        for rule in RULES:
            try:
                rule(keys)
            except (Broken, UserError) as error:
                problem = str(error)
            except Exception as error:  # whatever the method's code raises
                problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
            else:
                report(f"ok      {combination}: {rule.__doc__}")
                continue
            broken += 1
            report(f"BROKEN  {combination}: {rule.__doc__}\n        {problem}")
    return broken


def combinations(name):
    """{what people call it: keys} of a method with everything that it can be combined with."""
    declared = components.methods()[name]
    found = {name: {"DISTILLER.TYPE": name}}
    if declared["temperature"]:
        found[f"{name}+GKD"] = {"DISTILLER.TYPE": name, "GKD": {}}
    for trainer, values in components.trainers().items():
        if values["two_losses"] and declared["needs"]:
            found |= {f"{label}+{trainer}": {**keys, "SOLVER.TRAINER": trainer} for label, keys in list(found.items())}
    return found


def learner(keys, seed=0):
    """A student of digits with untrained networks, as a run with these keys would begin."""
    method_class(keys["DISTILLER.TYPE"])
    base = {"DATASET.TYPE": "digits", "DISTILLER.STUDENT": "resnet8", "SOLVER.PRECISION": "fp64"}
    resolved = resolve((), flatten({**base, **keys}, "check"))
    needs = components.methods()[keys["DISTILLER.TYPE"]]["needs"]
    teacher = TEACHER if needs else None
    specification = build_specification(resolved.config, scaled=resolved.scaled, teacher=teacher, seed=seed)
    with initialisation(0, "teacher"):
        network = build_network("resnet8", 10).requires_grad_(False).eval() if needs else None
    built = Learner(specification, NUM_IMAGES, network)
    built.set_epoch(EPOCHS[-1], 0.02)
    built.train()
    return built


def batch(keys, position=0, device="cpu", size=BATCH):
    """The batch of digits at a position of the first epoch, as the method wants it."""
    declared = components.datasets()["digits"]
    specification = {
        "dataset": {"name": "digits"},
        "precision": "fp64",
        "views": {"augmentation": declared["augmentation"]},
    }
    training, _ = put_images(specification, _images(), torch.device("cpu"))
    views = components.methods()[keys["DISTILLER.TYPE"]]["views"]
    plan = epoch_plan(0, 1, NUM_IMAGES, views, declared["augmentation"])
    return fetch(training.to(device), plan.to(device), position, position + size)


@cache
def _images():
    train_images, train_labels, test_images, test_labels = arrays()
    return Images(train_images, train_labels, test_images[:1], test_labels[:1])


def losses_of(built, images):
    return built.method.losses(*built.outputs(images), images, built.schedule)


def gives_finite_losses(keys):
    """losses are finite 0-d tensors, "ce" among them, and depend on the student"""
    built = learner(keys)
    losses = losses_of(built, batch(keys))
    if not isinstance(losses, dict) or "ce" not in losses:
        raise Broken(f'`losses` returns {type(losses).__name__}; it must be a dict with "ce", the task\'s loss')
    for name, loss in losses.items():
        if not isinstance(loss, torch.Tensor) or loss.shape != ():
            raise Broken(f"the loss {name!r} is not a 0-d tensor; take its mean over the batch")
        if not loss.isfinite() or not loss.requires_grad:
            raise Broken(f"the loss {name!r} is {loss.item()}; it must be finite and have a gradient")


def waits_for_no_device(keys):
    """no value is read back inside a step"""
    built = learner(keys)
    for module in filter(None, (built.student, built.method, built.teacher)):
        module.to("meta")
    built.schedule = {name: value.to("meta") for name, value in built.schedule.items()}
    try:
        built.step(batch(keys, device="meta"), {})
    except RuntimeError as error:  # the meta device holds no values
        reason = " ".join(str(error).split())
        raise Broken(f"`.item()`, `if tensor`, a boolean mask or a CPU tensor: {reason}") from None


def trains_what_is_its_own(keys):
    """a step moves the student and the method's own modules, and leaves the teacher alone"""
    built = learner(keys)
    frozen = built.teacher and weights_digest(built.teacher.state_dict())
    moving = {f"{m}.{n}": p for m in ("student", "method") for n, p in getattr(built, m).named_parameters()}
    before = {name: parameter.detach().clone() for name, parameter in moving.items()}
    built.step(batch(keys), {})
    still = [name for name, parameter in moving.items() if torch.equal(parameter, before[name])]
    if still:
        raise Broken(f"{', '.join(still[:3])} did not move; use each parameter in a loss or do not register it")
    if built.teacher and weights_digest(built.teacher.state_dict()) != frozen:
        raise Broken("the teacher changed; do not write to it")


def is_a_function_of_the_seed(keys):
    """the same seed gives the same weights"""
    digests = []
    for _ in range(2):
        built = learner(keys)
        for position in (0, BATCH):
            built.step(batch(keys, position), {})
        digests.append(_digest(built))
        torch.rand(1)  # the global generator is not the method's
    if digests[0] != digests[1]:
        raise Broken("two runs at one seed differ; draw random numbers only while building, or from batch.index")


def resumes(keys):
    """a run resumed from its state is the run uninterrupted"""
    whole = learner(keys)
    whole.step(batch(keys), {})
    state = {name: _copied(part) for name, part in whole.state_dict().items()}
    whole.step(batch(keys, BATCH), {})
    resumed = learner(keys, seed=1)
    resumed.load_state_dict(state)
    resumed.step(batch(keys, BATCH), {})
    if _digest(whole) != _digest(resumed):
        raise Broken("it differs; keep what changes in buffers or parameters of the method, not in attributes")


def names_its_numbers(keys):
    """losses and observations have columns of their own in history.csv, in every epoch and every batch"""
    built = learner(keys)
    for epoch in EPOCHS:
        sums = {}
        built.set_epoch(epoch, 0.02)
        for size in (BATCH // 4, BATCH // 8):  # the last batch of an epoch is smaller
            built.step(batch(keys, size=size), sums)
        averages(sums)


def learns(keys):
    """twenty steps on one batch lower the sum of its losses"""
    built, fixed, totals = learner(keys), batch(keys), []
    for _ in range(20):
        sums = {}
        built.step(fixed, sums)
        totals.append(sum(value.item() for name, value in sums.items() if name.startswith("loss_")) / BATCH)
    if not (math.isfinite(totals[-1]) and totals[-1] < totals[0]):
        raise Broken(f"they went from {totals[0]:.4g} to {totals[-1]:.4g}; look at signs and weights")


RULES = (gives_finite_losses, names_its_numbers, waits_for_no_device, trains_what_is_its_own)
RULES += (is_a_function_of_the_seed, resumes, learns)


def _digest(built):
    return [weights_digest(module.state_dict()) for module in (built.student, built.method)]


def _copied(value):
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value

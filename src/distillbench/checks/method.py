"""What every method has to keep, the package's and a user's own: `distillbench check FILE` and the tests run it."""

import math

import torch

from distillbench.config import components
from distillbench.config.resolve import flatten, resolve
from distillbench.config.specification import build_specification
from distillbench.engine.feed import generated_feed
from distillbench.engine.learner import Learner
from distillbench.engine.replay import Recording, Replayed
from distillbench.engine.streams import initialisation
from distillbench.engine.sums import averages
from distillbench.engine.weights import deployed_network, weights_digest
from distillbench.errors import UserError
from distillbench.methods import method_class
from distillbench.models import build_network, calibrate

TEACHER = {"kind": "run", "id": "digits/resnet8/none/s0-000000000000", "checkpoint": "last"}
NUM_IMAGES = 1024
BASE = {  # what keys leave open; the rules do not depend on it
    "DATASET.TYPE": "digits",
    "DISTILLER.TEACHER": "resnet8",
    "DISTILLER.STUDENT": "resnet8",
    "SOLVER.BATCH_SIZE": 16,
    "SOLVER.LR": 2e-4,  # at higher ones ten steps take CRD beyond the minimum
    "SOLVER.PRECISION": "fp64",
}
EPOCHS = (1, 2, 10**6)  # the last is behind every warm-up


class Broken(Exception):
    """A rule that is not kept: what happened and what would be right."""


def check_method(name, report=print):
    """Try every rule on a method, in its combinations with transforms and trainers; returns the number broken.

    Raises UserError if the method's file cannot be imported or does not fit its declaration.
    """
    method_class(name)
    return try_rules(RULES, combinations(name), report)


def try_rules(rules, cases, report):
    """Try every rule on every case; returns the number broken. cases: {what people call it: keys}."""
    broken = 0
    torch.set_num_threads(1)  # as runs have by default; more only get into each other's way at this size
    for case, keys in cases.items():
        for rule in rules:
            try:
                rule(keys)
            except (Broken, UserError) as error:
                problem = str(error)
            except Exception as error:  # whatever the code in question raises
                problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
            else:
                report(f"ok      {case}: {rule.__doc__}")
                continue
            broken += 1
            report(f"BROKEN  {case}: {rule.__doc__}\n        {problem}")
    return broken


def combinations(name):
    """{what people call it: keys} of a method with everything that it can be combined with."""
    declared = components.methods()[name]
    found = {name: {"DISTILLER.TYPE": name}}
    if declared["temperature"]:
        for transform, values in components.transforms().items():
            found[f"{name}+{transform}"] = {"DISTILLER.TYPE": name, values["node"]: {}}
        if len(nodes := {values["node"]: {} for values in components.transforms().values()}) > 1:
            found["+".join([name, *components.transforms()])] = {"DISTILLER.TYPE": name, **nodes}
    for trainer, values in components.trainers().items():
        if values["label"] and (declared["teacher"] != "none" or not values["two_losses"]):
            found |= {f"{label}+{trainer}": {**keys, "SOLVER.TRAINER": trainer} for label, keys in list(found.items())}
    return found


def learner(keys, num_images=NUM_IMAGES):
    """A learner on generated images with untrained networks, as a run with these keys would begin.

    keys: of a configuration; what they leave open is as in `BASE`.
    """
    method_class(keys["DISTILLER.TYPE"])
    config, transforms, _ = resolve((), flatten({**BASE, **keys}, "check"))
    teacher = TEACHER if components.methods()[keys["DISTILLER.TYPE"]]["teacher"] != "none" else None
    specification = build_specification(config, transforms=transforms, teacher=teacher, seed=0)
    network = teacher and _untrained(config.DISTILLER.TEACHER, components.datasets()[config.DATASET.TYPE])
    built = Learner(specification, generated_feed(specification, num_images), network)
    built.specification, built.batch = specification, config.SOLVER.BATCH_SIZE
    built.begin(EPOCHS[-1], config.SOLVER.LR)
    return built


def _untrained(network, dataset):
    """A frozen network whose activations have the size of a trained one's."""
    with initialisation(0, "teacher"):
        teacher = build_network(network, dataset["name"])
        calibrate(teacher, torch.randn(4, 3, dataset["image_size"], dataset["image_size"]))
    return teacher.requires_grad_(False).eval()


def steps(built, *sizes):
    """Steps from the beginning of an epoch, of so many images each."""
    built.feed.begin(1)
    for size in sizes or (built.batch,):
        built.step(size)


def gives_finite_losses(keys):
    """losses are finite 0-d tensors, "ce" among them, and so are their gradients"""
    built = learner(keys)
    *_, losses = built.method(*built.callables, built.feed.batch(built.batch), built.schedule)
    if not isinstance(losses, dict) or "ce" not in losses:
        raise Broken(f'`losses` returns {type(losses).__name__}; it must be a dict with "ce", the task\'s loss')
    for name, loss in losses.items():
        if not isinstance(loss, torch.Tensor) or loss.shape != ():
            raise Broken(f"the loss {name!r} is not a 0-d tensor; take its mean over the batch")
        if not loss.isfinite() or not loss.requires_grad:
            raise Broken(f"the loss {name!r} is {loss.item()}; it must be finite and have a gradient")
    sum(losses.values()).backward()
    for name, parameter in _moving(built).items():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise Broken(f"the gradient of {name} is not finite; look at roots, logarithms and divisions")


def waits_for_no_device(keys):
    """no value is read back inside a step"""
    built = learner(keys)
    for module in filter(None, (built.student, built.method, built.teacher)):
        module.to("meta")
    built.feed.to("meta")
    built.method.context.labels = built.feed.labels
    built.sums.device = "meta"
    built.schedule = {name: value.to("meta") for name, value in built.schedule.items()}
    try:
        built.step(built.batch)
    except RuntimeError as error:  # the meta device holds no values
        reason = " ".join(str(error).split())
        raise Broken(f"`.item()`, `if tensor`, a boolean mask or a CPU tensor: {reason}") from None


def trains_what_is_its_own(keys):
    """a step moves the student and the method's own modules, and leaves the teacher alone"""
    built = learner(keys)
    frozen = built.teacher and weights_digest(built.teacher.state_dict())
    moving = _moving(built)
    before = {name: parameter.detach().clone() for name, parameter in moving.items()}
    built.trainer.lr.fill_(1.0)  # so that what a small gradient moves is not lost in rounding
    steps(built)
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
        steps(built, built.batch, built.batch)
        digests.append(_digest(built))
        torch.rand(1)  # the global generator is not the method's
    if digests[0] != digests[1]:
        raise Broken("two runs at one seed differ; draw random numbers only while building, or from batch.index")


def resumes(keys):
    """a run resumed from its state is the run uninterrupted"""
    whole = learner(keys)
    steps(whole)
    state = {name: _copied(part) for name, part in whole.state_dict().items()}
    whole.step(whole.batch)
    resumed = learner(keys)
    resumed.load_state_dict(state)
    resumed.feed.begin(1, whole.batch)
    resumed.step(whole.batch)
    if _digest(whole) != _digest(resumed):
        raise Broken("it differs; keep what changes in buffers or parameters of the method, not in attributes")


def names_its_numbers(keys):
    """losses and observations have columns of their own in history.csv, in every epoch and every batch"""
    built = learner(keys)
    for epoch in EPOCHS:
        built.begin(epoch, 0.02)
        for size in (built.batch // 4, built.batch // 8):  # the last batch of an epoch is smaller
            built.step(size)
        averages(built.task, built.sums)


def learns(keys):
    """ten steps on one batch lower the sum of its losses"""
    built, totals = learner(keys), []
    for _ in range(10):
        built.sums.zero()
        steps(built)
        sums = built.sums.totals()
        totals.append(sum(value.item() for name, value in sums.items() if name.startswith("loss_")) / built.batch)
    if not (math.isfinite(totals[-1]) and totals[-1] < totals[0]):
        raise Broken(f"they went from {totals[0]:.4g} to {totals[-1]:.4g}; look at signs and weights")


def can_be_replayed(keys):
    """steps recorded once and replayed are the steps themselves"""
    plain, replayed = learner(keys), learner(keys)
    if plain.draws or not components.methods()[keys["DISTILLER.TYPE"]]["capturable"]:
        return
    whole = plain.batch

    def recorded_anew(*kind):
        # Under a recorder autograd adds up gradients in new tensors, else in place. Of maps of one pixel the two have
        # other strides, by which batch normalisation chooses how it adds, and rounds.
        with Recording():
            plain.step(*kind)

    for stepping, built in ((recorded_anew, plain), (Replayed(replayed).step, replayed)):
        for epoch, lr in ((1, 0.02), (2, 0.01)):
            built.begin(epoch, lr)
            for size, observing in ((whole, True), (whole, False), (whole // 2, True), (whole, False)):
                stepping(size, observing)
    if not all(map(torch.equal, plain.statics(), replayed.statics())):
        raise Broken(
            "they differ; take what changes from `schedule` and the batch, write to buffers in place, and use"
            " torch.where for a branch; or declare `capturable = False`"
        )


def leaves_what_can_be_loaded(keys):
    """the network that a run leaves is built again and loaded, and gives the same"""
    built = learner(keys)
    steps(built)
    loaded = deployed_network(built.specification, built.feed.labels).double().eval()
    try:
        loaded.load_state_dict(built.deployed.state_dict())
    except RuntimeError as error:
        raise Broken(
            f"`deployed` gives another network where nothing is trained: {' '.join(str(error).split())}"
        ) from None
    (view,) = built.feed.batch(4).views[:1]
    with torch.no_grad():
        (here, _), (there, _) = built.deployed.eval()(view), loaded(view)
    if not torch.equal(here, there):
        raise Broken("its logits differ; keep in parameters and buffers of `deployed` whatever decides them")


RULES = (gives_finite_losses, names_its_numbers, waits_for_no_device, trains_what_is_its_own)
RULES += (is_a_function_of_the_seed, resumes, can_be_replayed, leaves_what_can_be_loaded, learns)


def _moving(built):
    """{name: parameter} of all that is trained."""
    named = {f"{m}.{n}": p for m in ("student", "method") for n, p in getattr(built, m).named_parameters()}
    return {name: parameter for name, parameter in named.items() if parameter.requires_grad}


def _digest(built):
    return [weights_digest(module.state_dict()) for module in (built.student, built.method)]


def _copied(value):
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value

"""Learning rates, and steps of trainers: parameters and buffers after each."""

import torch
import torch.nn.functional as F

from distillbench.checks.parity.cases import (
    FAILURE,
    Mismatch,
    NotCovered,
    Unreadable,
    compare,
    known_precision,
    specification_of,
)
from distillbench.engine.rates import learning_rate
from distillbench.methods.kd import kd_loss
from distillbench.trainers import build_trainer

OPTIMIZER = {"float64": (1e-12, 1e-13), "float32": (1e-5, 1e-6)}
SCHEDULE = (1e-14, 0.0)

# What vectors call the keys of a params file, and what in them is no setting.
SCHEDULE_KEYS = {"lr": "LR", "epochs": "EPOCHS", "decay_stages": "LR_DECAY_STAGES", "decay_rate": "LR_DECAY_RATE"}
SCHEDULE_FACTS = {"lr_per_epoch", "epochs_at_which_a_new_value_starts", "epoch_numbering"}
SCHEDULE_FACTS |= {"setting", "case", "split", "seed", "dtype", "format", "description", "notes", "origin", "torch"}
SGD_KEYS = {"lr": "LR", "momentum": "MOMENTUM", "weight_decay": "WEIGHT_DECAY"}
TRAINER_KEYS = {"base": SGD_KEYS, "dot": {**SGD_KEYS, "delta": "DOT.DELTA"}}
TRAINER_FACTS = {"momentum_task", "momentum_kd", "ce_weight", "kd_weight", "T", "decay_at", "no_step_kd"}


def solver_keys(settings, names, facts):
    """The configuration keys under SOLVER of a case's settings. Raises NotCovered for one that there is no key for."""
    for name, value in settings.items():
        if name not in (*names, *facts) and value not in (None, False, 0):
            raise NotCovered(f"setting {name} = {value}")
    return {f"SOLVER.{key}": settings[name] for name, key in names.items()}


def check_schedule(description):
    settings = {key: value for key, value in description.items() if not FAILURE.search(key)}
    keys = solver_keys(settings, SCHEDULE_KEYS, SCHEDULE_FACTS)
    schedule = specification_of({"DISTILLER.TYPE": "NONE", **keys}).schedule
    rates = [learning_rate(schedule, epoch) for epoch in range(1, description["epochs"] + 1)]
    compare("lr_per_epoch", rates, description["lr_per_epoch"], SCHEDULE)
    return 1


TRAINERS = {"torch.optim.SGD": "base", "DistillationOrientedTrainer": "dot"}  # by the first word
BUFFERS = {"momentum_buffer": "task", "momentum_kd_buffer": "distillation"}  # of DOT


def check_trainer(description, arrays):
    """Steps of a trainer, under given gradients or with a small network: parameters and buffers after each."""
    kind, settings = description["optimizer"].split()[0], description["hyperparameters"]
    if kind not in TRAINERS:
        raise NotCovered(f"optimizer {kind}")
    tolerance = OPTIMIZER[known_precision(description["dtype"])]
    keys = solver_keys(settings, TRAINER_KEYS[TRAINERS[kind]], TRAINER_FACTS)
    for name, sign in (("momentum_task", -1), ("momentum_kd", 1)):
        if name in settings and abs(settings["momentum"] + sign * settings["delta"] - settings[name]) > 1e-9:
            raise NotCovered(f"setting {name} = {settings[name]}")
    specification = specification_of({"DISTILLER.TYPE": "KD", "SOLVER.TRAINER": TRAINERS[kind], **keys})
    names = [name.removeprefix("param.") for name in arrays if name.startswith("param.")]
    parameters = {name: torch.nn.Parameter(torch.from_numpy(arrays[f"param.{name}"][0].copy())) for name in names}
    steps = len(arrays[f"param.{names[0]}"]) - 1 if names else 0
    if steps < 1:
        raise Unreadable("holds no step of a parameter")
    stated = description.get("steps", steps)
    if type(stated) is not int or stated != steps:
        raise Unreadable(f"states steps {stated!r}, its arrays hold {steps}")
    trainer = build_trainer(specification, list(parameters.values()))
    losses = _mlp_losses if description.get("kind") == "mlp" else _given_losses
    for step in range(steps):
        if "lr" in arrays:
            trainer.lr.fill_(float(arrays["lr"][step]))
        now = losses(arrays, step, parameters, settings)
        if losses is _mlp_losses:
            _check_gradients(arrays, step, parameters, now, tolerance)
        trainer.update(now)
        for i, (name, parameter) in enumerate(parameters.items()):
            arrays.compare(f"param.{name}", parameter, tolerance, step + 1)
            if kind == "torch.optim.SGD":
                if settings["momentum"]:  # else torch keeps no buffer
                    arrays.compare(f"momentum_buffer.{name}", trainer.optimizer.state["buffers"][i], tolerance, step)
                continue
            for theirs, ours in BUFFERS.items():
                place = f"{theirs}.{name}"
                buffer = trainer.buffers[ours][i] if trainer.started[ours][i] else None
                stated = arrays[place][step + 1]
                if (buffer is not None) != arrays[f"has_{place}"][step + 1]:
                    there = "none" if buffer is None else "is there"
                    raise Mismatch(f"{place}[{step + 1}]: {there}, not so in the reference")
                if buffer is not None:
                    arrays.compare(place, buffer, tolerance, step + 1)
    states = ("param.", *(f"{has}{name}." for has in ("", "has_") for name in BUFFERS if kind != "torch.optim.SGD"))
    for name in arrays.read:
        number = steps + name.startswith(states)  # the state before the first step is there too
        if len(arrays[name]) != number:
            raise Unreadable(f"{name} holds {len(arrays[name])} entries, expected {number} for {steps} steps")
    return len(arrays.compared)


def _given_losses(arrays, step, parameters, settings):
    """Losses whose gradients are those that a case states."""
    losses = {"ce": torch.zeros(()), "kd": torch.zeros(())}
    halves = {"ce": "grad_task", "kd": "grad_kd"} if any(name.startswith("has_") for name in arrays) else {"ce": "grad"}
    for loss, kind in halves.items():
        for name, parameter in parameters.items():
            gradient, has = torch.from_numpy(arrays[f"{kind}.{name}"][step]), f"has_{kind}.{name}"
            if has not in arrays or arrays[has][step]:
                losses[loss] = losses[loss] + (parameter * gradient).sum()
    return losses


def _mlp_losses(arrays, step, parameters, settings):
    """Cross entropy and KD of the two-layer network that a case describes."""
    x, y, soft = (torch.from_numpy(arrays[f"in.{name}"][step]) for name in ("x", "y", "teacher_logits"))
    hidden = F.relu(F.linear(x, parameters["w1"], parameters["b1"]))
    logits = F.linear(hidden, parameters["w2"], parameters["b2"])
    return {
        "ce": settings["ce_weight"] * F.cross_entropy(logits, y),
        "kd": settings["kd_weight"] * kd_loss(logits, soft, settings["T"]),
    }


def _check_gradients(arrays, step, parameters, losses, tolerance):
    """The losses of a step of a network, and their gradients."""
    for name, half in {"ce": "task", "kd": "kd"}.items():
        arrays.compare(f"out.loss_{name}", losses[name], tolerance, step)
        gradients = torch.autograd.grad(losses[name], list(parameters.values()), retain_graph=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            place = f"grad_{half}.{parameter}"
            if not arrays[f"has_{place}"][step]:
                raise Mismatch(f"{place}[{step}]: is there, not so in the reference")
            arrays.compare(place, gradient, tolerance, step)

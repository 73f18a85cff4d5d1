"""Optimizers and learning rates are those of torch, step by step, and keep what steps have to keep."""

import pytest
import torch
from standins import specification_of

from distillbench.checks import method as rules
from distillbench.config import components
from distillbench.engine.rates import learning_rate
from distillbench.engine.streams import generator
from distillbench.trainers import build_trainer

OFFICIAL = {  # keys of SOLVER: torch's own
    "SGD": ({"MOMENTUM": 0.7}, lambda p, **lr: torch.optim.SGD(p, momentum=0.7, weight_decay=0.01, **lr)),
    "Nesterov": (
        {"MOMENTUM": 0.7, "NESTEROV": True},
        lambda p, **lr: torch.optim.SGD(p, momentum=0.7, weight_decay=0.01, nesterov=True, **lr),
    ),
    "AdamW": (
        {"TYPE": "AdamW", "BETA1": 0.8, "BETA2": 0.95, "EPS": 1e-4},
        lambda p, **lr: torch.optim.AdamW(p, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.01, **lr),
    ),
}


def specified(**solver):
    return specification_of(**{f"SOLVER.{name}": value for name, value in solver.items()})


@pytest.mark.parametrize("name", OFFICIAL)
def test_steps_are_those_of_torch(name):
    """At a rate that changes, with a parameter that has a gradient in every second step and one that has none."""
    solver, official = OFFICIAL[name]
    draws = generator(0, "optimizers")
    ours = [torch.nn.Parameter(torch.randn(3, 2, generator=draws, dtype=torch.float64)) for _ in range(3)]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    trainer = build_trainer(specified(WEIGHT_DECAY=0.01, **solver), ours)
    optimizer = official(theirs, lr=0.1)
    for step in range(6):
        rate = 0.1 / (1 + step)
        gradients = torch.randn(2, 3, 2, generator=draws, dtype=torch.float64)[: 1 + step % 2]
        trainer.lr.fill_(rate)
        trainer.update({"ce": sum((p * g).sum() for p, g in zip(ours, gradients, strict=False))})
        optimizer.param_groups[0]["lr"] = rate
        for i, parameter in enumerate(theirs):
            parameter.grad = gradients[i].clone() if i < len(gradients) else None
        optimizer.step()
        for mine, torchs in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, torchs, rtol=1e-13, atol=1e-15)
    assert not torch.equal(ours[0], ours[1]) and not torch.equal(ours[2], torch.zeros(3, 2).double())


@pytest.mark.parametrize("solver", [{"TYPE": "AdamW", "LR": 0.001}, {"NESTEROV": True}], ids=["AdamW", "Nesterov"])
@pytest.mark.parametrize("rule", [rules.resumes, rules.can_be_replayed, rules.trains_what_is_its_own])
def test_a_run_with_another_optimizer_keeps_the_rules_of_runs(rule, solver):
    rule({"DISTILLER.TYPE": "KD", **{f"SOLVER.{name}": value for name, value in solver.items()}})


@pytest.mark.parametrize("name", components.optimizers())
def test_what_an_optimizer_keeps_never_moves(name):
    parameters = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
    trainer = build_trainer(specified(TYPE=name, LR=0.1), parameters)
    places = [tensor.data_ptr() for tensor in trainer.statics()]
    before = [tensor.clone() for tensor in trainer.statics()]
    trainer.update({"ce": sum((p**2).sum() for p in parameters)})
    assert [tensor.data_ptr() for tensor in trainer.statics()] == places
    assert len(places) == 1 + sum(map(len, trainer.state_dict().values())) == len(set(places))
    assert [torch.equal(*pair) for pair in zip(before, trainer.statics(), strict=True)][1:] == [False] * (
        len(places) - 1
    )
    again = build_trainer(specified(TYPE=name, LR=0.1), [parameter.detach() for parameter in parameters])
    again.load_state_dict(trainer.state_dict())
    assert all(map(torch.equal, trainer.statics(), again.statics()))


# The learning rate


def rates(**solver):
    schedule = specified(**solver).schedule
    return [learning_rate(schedule, epoch) for epoch in range(1, schedule["EPOCHS"] + 1)]


def of_torch(epochs, make):
    """The rates of a scheduler of torch, stepped once an epoch."""
    optimizer, found = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3), []
    scheduler = make(optimizer)
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def warm(optimizer, epochs, then):
    """`then` behind a linear warm-up, as the reference training of torchvision puts it."""
    first = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (epochs + 1), total_iters=epochs)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [first, then], milestones=[epochs])


@pytest.mark.parametrize("least", [0.0, 0.02])
@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_cosine_and_its_warm_up_are_those_of_torch(warmup, least):
    def make(optimizer):
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12 - warmup, eta_min=least)
        return warm(optimizer, warmup, cosine) if warmup else cosine

    found = rates(LR=0.3, EPOCHS=12, SCHEDULE="cosine", WARMUP_EPOCHS=warmup, MIN_LR=least)
    assert found == pytest.approx(of_torch(12, make), rel=1e-12)


def test_steps_and_their_warm_up_are_those_of_torch():
    def make(optimizer):
        return warm(optimizer, 3, torch.optim.lr_scheduler.MultiStepLR(optimizer, [5 - 3, 8 - 3], gamma=0.2))

    found = rates(LR=0.3, EPOCHS=10, LR_DECAY_STAGES=[5, 8], LR_DECAY_RATE=0.2, WARMUP_EPOCHS=3)
    assert found == pytest.approx(of_torch(10, make), rel=1e-12)
    assert found[:4] == pytest.approx([0.075, 0.15, 0.225, 0.3])

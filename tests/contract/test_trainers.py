"""Trainers descend as their formulas say."""

import torch

from distillbench.trainers import base, dot

PLAIN = {"TYPE": "SGD", "NESTEROV": False}


def test_the_weights_that_dot_implies_are_those_of_its_control():
    """Under constant gradients, after many steps, a step of DOT is a step of SGD with the documented weights."""
    g, h, rate = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 3.0], dtype=torch.float64), 1e-3
    schedule = {**PLAIN, "LR": rate, "MOMENTUM": 0.9, "WEIGHT_DECAY": 0.0}
    moved = {}
    for trainer, (task, kd) in {dot.Trainer: (1, 1), base.Trainer: (0.1 / 0.175, 4.0)}.items():
        p = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        learner = trainer([p], schedule, {"DELTA": 0.075})
        for _ in range(2000):
            before = p.detach().clone()
            learner.update({"ce": task * (p * g).sum(), "kd": kd * (p * h).sum()})
        moved[trainer] = p.detach() - before
    torch.testing.assert_close(moved[dot.Trainer], moved[base.Trainer], rtol=1e-9, atol=0)


def test_two_steps_of_dot_are_those_of_its_formula():
    """Momenta 0.2 of the task and 0.4 of the distillation."""
    g, h, decay, rate = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double(), 0.01, 0.1
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    trainer = dot.Trainer([p], {**PLAIN, "LR": rate, "MOMENTUM": 0.3, "WEIGHT_DECAY": decay}, {"DELTA": 0.1})
    expected, v, u = p.detach().clone(), torch.zeros(2).double(), torch.zeros(2).double()
    for _ in range(2):
        trainer.update({"ce": (p * g).sum(), "kd": (p * h).sum()})
        v = 0.2 * v + g + decay * expected
        u = 0.4 * u + h
        expected = expected - rate * v - rate * u
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=0)


def test_dot_with_a_distillation_loss_alone_descends_it():
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    trainer = dot.Trainer([p], {**PLAIN, "LR": 0.1, "MOMENTUM": 0.9, "WEIGHT_DECAY": 0.0}, {"DELTA": 0.075})
    trainer.update({"kd": (p**2).sum()})
    torch.testing.assert_close(p.detach(), torch.full((2,), 0.8, dtype=torch.float64))

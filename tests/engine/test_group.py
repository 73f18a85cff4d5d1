"""Several processes that share every batch give what one gives: here threads, each with a half of the images."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from distillbench.config import components
from distillbench.engine.streams import generator
from distillbench.methods.base import Batch
from distillbench.transforms.gkd import GradientScaling

SCHEDULE = {"TYPE": "SGD", "NESTEROV": False, "LR": 0.1, "MOMENTUM": 0.9, "WEIGHT_DECAY": 0.01}


class Half:
    """One of two threads; what one leaves in `place` the other finds."""

    def __init__(self, rank, place, barrier):
        self.rank, self.place, self.barrier = rank, place, barrier

    def exchange(self, value):
        self.place[self.rank] = value
        self.barrier.wait(10)
        found = list(self.place)
        self.barrier.wait(10)
        return found

    def gather(self, tensor):
        return torch.cat(self.exchange(tensor))

    def mine(self, tensor):
        return tensor.chunk(2)[self.rank]

    def mean(self, gradients):
        return [None if a is None else (a + b) / 2 for a, b in zip(*self.exchange(gradients), strict=True)]


def in_halves(work):
    """What work(group, half), called in two threads, returns in each."""
    place, barrier = [None, None], Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(work, Half(rank, place, barrier), slice(4 * rank, 4 * rank + 4)) for rank in (0, 1)]
        return [call.result() for call in calls]


@pytest.mark.parametrize("factors", GradientScaling.keys["FACTORS"].choices)
def test_the_factors_of_gkd_are_those_of_the_whole_batch(factors):
    teacher, target = 3 * torch.randn(8, 10, generator=generator(0, "b")), torch.arange(8)
    parameters = {name: key.default for name, key in GradientScaling.keys.items()} | {"FACTORS": factors, "K": 6.0}
    scaling = GradientScaling(parameters, temperature=4.0)

    def work(group, half):
        return scaling.factors(teacher[half], Batch((), target[half], target[half], group))

    whole = scaling.factors(teacher, Batch((), target, target))
    torch.testing.assert_close(torch.cat(in_halves(work)), whole)
    alone = torch.cat([scaling.factors(teacher[h], Batch((), target[h], target[h])) for h in (slice(4), slice(4, 8))])
    assert (alone - whole).abs().max() > (1e-3 if factors != "mean" else 0)


@pytest.mark.parametrize("name", sorted(components.trainers()))
def test_a_step_of_a_trainer_is_that_of_the_whole_batch(name):
    x = torch.randn(8, 3, dtype=torch.float64, generator=generator(0, "x"))

    def work(group, half):
        p, unused = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
        trainer = components.implementation("trainer", name)([p, unused], SCHEDULE, {"DELTA": 0.05}, *group)
        for _ in range(3):
            trainer.update({"ce": (x[half] @ p).pow(2).mean(), "kd": (x[half] @ p).sin().mean()})
        assert torch.equal(unused, torch.ones(3))
        return p.detach()

    for part in in_halves(lambda group, half: work((group,), half)):
        torch.testing.assert_close(part, work((), slice(8)), rtol=1e-12, atol=1e-12)

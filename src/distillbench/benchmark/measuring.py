"""Rungs against the clock: interleaved, several rounds, and what the same rung twice says of the noise."""

from statistics import median
from typing import NamedTuple


class Measured(NamedTuple):
    """A rung that was gated. rates: images per second, one a round; none where the gate failed, for a reason."""

    rung: object
    rates: tuple = ()
    reason: str = ""

    @property
    def gate(self):
        return "fail" if self.reason else "pass"

    @property
    def rate(self):
        return median(self.rates) if self.rates else None


def in_rounds(names, rounds):
    """Yield the names once a round, forwards and backwards in turn: a drift of the machine meets all alike."""
    for number in range(rounds):
        yield names if number % 2 == 0 else names[::-1]


def noise(first, again):
    """The median relative difference of one rung's rates from its own in the same round."""
    return median(abs(a / b - 1) for a, b in zip(again, first, strict=True))


def ratio(rate, reference):
    """None where there is either no rate."""
    return rate / reference if rate and reference else None

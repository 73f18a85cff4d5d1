"""Means, spreads and intervals, of runs that share seeds.

At one seed every method starts from the same student, sees the same order and the same augmentation, so that
methods are compared seed by seed: the interval is that of the mean of the paired differences. Pairs of a suite
share seeds too (and often the very runs of the control); the pooled difference is therefore averaged over the
pairs within a seed first, and its interval comes from the spread between seeds.
"""

from typing import NamedTuple

import numpy as np

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean of n values with its t-interval; low and high are NaN for fewer than two values."""

    n: int
    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self):
        """Whether all of it lies on one side of zero."""
        return self.low > 0 or self.high < 0


def t_interval(values, level=LEVEL):
    """The interval of the mean of independent normal values (Student's t, n - 1 degrees of freedom)."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    mean = values.mean() if n else np.nan
    if n < 2:
        return Interval(n, mean, np.nan, np.nan)
    from scipy.special import stdtrit  # scipy.stats, which calls it, takes half a second to import

    half = stdtrit(n - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(n)
    return Interval(n, mean, mean - half, mean + half)


def paired_difference(treated, control):
    """treated, control: {seed: value}. The interval of treated - control over the seeds that both have."""
    return t_interval([treated[seed] - control[seed] for seed in sorted(treated.keys() & control.keys())])


def pooled_difference(pairs):
    """pairs: [(treated, control)] of {seed: value}, one a pair. Over the seeds that every pair has on both sides."""
    seeds = set.intersection(*(set(treated) & set(control) for treated, control in pairs)) if pairs else set()
    return t_interval([np.mean([treated[s] - control[s] for treated, control in pairs]) for s in sorted(seeds)])


def mean(values):
    """NaN for no value."""
    return sum(values) / len(values) if values else float("nan")


def standard_deviation(values):
    """With n - 1; NaN for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

"""Metrics of a classifier's stored predictions. To add one, write a function with `@metric`: it is in metrics.json and
the table of details from then on, and no run trains or predicts again.

Each takes `Predictions` and returns a float; those with `teacher=True` take those of the teacher as a second argument
and exist for distilled students only. Where predictions lack what a metric asks them for, there is no value of it.
What needs the logits of all classes goes through `each`. Probabilities are at temperature 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from distillbench.tasks.classification.predictions import each

METRICS = {}  # by name, in the order of the table's columns
ECE_BINS = 15


class Metric(NamedTuple):
    """A metric and how people are shown it.

    compute: the function; teacher: whether it takes the teacher's predictions, too; heading, unit and form (of
    numbers): its column's; legend: what the table says of it; phrase: its name in a sentence, if it is the headline.
    """

    compute: Callable
    heading: str
    unit: str = ""
    form: str = ".4f"
    legend: str = ""
    phrase: str = ""
    teacher: bool = False


def metric(heading, **shown):
    """Registers a function under its name as a `Metric`."""

    def register(function):
        METRICS[function.__name__] = Metric(function, heading, **shown)
        return function

    return register


@metric("top-1", unit="%", form=".2f", phrase="top-1 accuracy")
def top1(predictions):
    """Percent of images whose largest logit is the target's."""
    return float(100 * (predictions.target_rank < 1).mean())


@metric("top-5", unit="%", form=".2f")
def top5(predictions):
    """Percent of images whose target is among the five largest logits."""
    return float(100 * (predictions.target_rank < 5).mean())


@metric("NLL", legend="NLL and KL(teacher || student) in nats at temperature 1")
def nll(predictions):
    """Mean negative log-likelihood of the target, in nats."""
    return float(-predictions.target_log_probability.mean())


@metric("Brier", legend="Brier score summed over classes (0 to 2)")
def brier(predictions):
    """Mean squared distance of the probabilities from the one-hot target, summed over classes: 0 to 2."""

    def distances(shard):
        distance = np.exp(shard.log_probabilities)
        distance[np.arange(len(distance)), shard.targets] -= 1
        return (distance**2).sum(axis=1)

    return float(each(distances, predictions).mean())


@metric("ECE", unit="%", form=".2f", legend=f"ECE with {ECE_BINS} bins of equal width")
def ece(predictions):
    """Expected calibration error in percent: |accuracy - confidence| over 15 bins of equal width, weighted by size."""
    confidence = predictions.confidence
    surplus = (predictions.target_rank == 0) - confidence
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)  # (0, 1/15], (1/15, 2/15], ...
    return float(100 * np.abs(np.bincount(bins, surplus, ECE_BINS)).sum() / len(confidence))


@metric(
    "agreement",
    unit="%",
    form=".2f",
    legend="agreement: share of images for which student and teacher predict the same class",
    teacher=True,
)
def agreement(predictions, teacher):
    """Percent of images for which student and teacher predict the same class."""
    return float(100 * (predictions.first_class == teacher.first_class).mean())


@metric("KL to teacher", teacher=True)
def kl_to_teacher(predictions, teacher):
    """Mean KL(teacher || student), in nats."""

    def divergences(shard, taught_by):
        log_student, log_teacher = shard.log_probabilities, taught_by.log_probabilities
        return (np.exp(log_teacher) * (log_teacher - log_student)).sum(axis=1)

    return float(each(divergences, predictions, teacher).mean())

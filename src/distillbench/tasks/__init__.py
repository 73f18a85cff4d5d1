"""What runs are trained and compared for: a folder a task. Asking which there are imports nothing heavy.

A task's folder declares in its __init__.py, as literals: `name`; `version`; `headline`, the metric that tables and
figures compare, a percentage; `protocol`, how weights are evaluated, whose digest ends the name of an evaluation. Its
`batches.py` has what a network gets and gives, `training.py` the loss on the labels and what an epoch adds up,
`stored.py` makes what is stored of predictions, `predictions.py` reads and checks it, `metrics.py` has the registry
`METRICS`.
"""

from importlib import import_module

from distillbench.config import components
from distillbench.errors import UserError, one_of


class Lacking(UserError):
    """What stored predictions do not hold, for a metric or whoever else asks for it."""

    def __init__(self, what, remedy):
        super().__init__(f"the predictions hold no {what}; {remedy}")


def names():
    return tuple(components.tasks())


def task(name):
    """The module that declares a task. Raises UserError for an unknown name."""
    if name not in names():
        raise UserError(one_of(name, names(), "task"))
    return components.module("task", components.tasks()[name])


def part(name, module):
    """A module of a task: "batches", "training", "stored", "predictions" or "metrics"."""
    return import_module(f"{task(name).__name__}.{module}")

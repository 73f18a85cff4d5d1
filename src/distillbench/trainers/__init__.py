"""Trainers, one file each: how a dict of losses becomes an update of the parameters."""

from distillbench.config.components import implementation
from distillbench.group import Alone


def build_trainer(specification, parameters, group=None):
    """The trainer of a run over a list of parameters, all of one dtype and device; group: processes that share it."""
    trainer = implementation("trainer", specification["trainer"]["name"])
    return trainer(parameters, specification.schedule, specification.parameters("trainer"), group or Alone())

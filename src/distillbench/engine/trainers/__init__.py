"""Trainers, one file each: how a dict of losses becomes an update of the parameters."""

from importlib import import_module

from distillbench.config import components
from distillbench.group import Alone


def build_trainer(specification, parameters, group=None):
    """The trainer of a run over a list of parameters, all of one dtype and device; group: processes that share it."""
    declared = components.trainers()[specification["trainer"]["name"]]
    module = import_module(f"distillbench.engine.trainers.{declared['module']}")
    return module.Trainer(parameters, specification["schedule"], specification.parameters("trainer"), group or Alone())

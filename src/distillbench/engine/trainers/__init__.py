"""Trainers, one file each: how a dict of losses becomes an update of the parameters."""

from importlib import import_module

from distillbench.config import components


def build_trainer(specification, parameters):
    """The trainer of a run over a list of parameters, all of one dtype and device."""
    declared = components.trainers()[specification["trainer"]["name"]]
    module = import_module(f"distillbench.engine.trainers.{declared['module']}")
    return module.Trainer(parameters, specification["schedule"], specification.parameters("trainer"))

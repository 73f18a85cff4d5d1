"""Trainers, one file each: how a dict of losses becomes an update of the parameters."""

from distillbench.config.components import implementation


def build_trainer(specification, parameters):
    """The trainer of a run over a list of parameters, all of one dtype and device."""
    trainer = implementation("trainer", specification["trainer"]["name"])
    return trainer(parameters, specification.schedule, specification.parameters("trainer"))

"""Distillation methods, one file each. Nothing lists them: a file here that declares a `Method` is one."""

from importlib import import_module

from distillbench.config import components


def build_method(specification, context):
    """The method of a run, with its gradient scaling if it has one.

    specification: `Specification`; context: `methods.base.Context`.
    """
    from distillbench.gradient_scaling import GradientScaling

    declared = components.methods()[specification["method"]["name"]]
    implementation = method_class(declared["name"])
    hyperparameters = specification["method"]["parameters"]
    if not specification["gradient_scaling"]:
        return implementation(hyperparameters, context)
    temperature = hyperparameters[declared["temperature"]]
    scaling = GradientScaling(specification["gradient_scaling"]["parameters"], temperature)
    return implementation(hyperparameters, context, scaling)


def method_class(name):
    """The class of a registered method."""
    module = import_module(f"distillbench.methods.{components.methods()[name]['module']}")
    return next(c for c in vars(module).values() if getattr(c, "name", None) == name)

"""Distillation methods, one file each. Nothing lists them: a file here that declares a `Method` is one."""

from inspect import signature

from distillbench.config import components
from distillbench.errors import UserError


def build_method(specification, context):
    """The method of a run, with the transforms that its logits go through.

    specification: `Specification` of what this code does; context: `methods.base.Context`.
    """
    name, hyperparameters = specification["method"]["name"], specification.parameters("method")
    implementation = method_class(name)
    if not specification.transforms:
        return implementation(hyperparameters, context)
    _require_logit_method(name, implementation)
    temperature = hyperparameters[components.methods()[name]["temperature"]]
    transforms = tuple(
        components.implementation("transform", transform)(specification.parameters(declared["place"]), temperature)
        for transform, declared in specification.transforms.items()
    )
    return implementation(hyperparameters, context, transforms)


def method_class(name):
    """The class of a method. Raises UserError if it does not fit its declaration."""
    from distillbench.methods.base import Method

    found = components.implementation("method", name)
    if not issubclass(found, Method):
        where = components.methods()[name].get("file", name)
        raise UserError(f"{where}: {name} is not a subclass of distillbench.methods.base.Method; derive it from one")
    entry = list(signature(Method.forward).parameters)
    if len(signature(found.forward).parameters) != len(entry):
        where = components.methods()[name].get("file", name)
        raise UserError(f"{where}: {name}.forward is called with ({', '.join(entry)}); give yours another name")
    return found


def _require_logit_method(name, implementation):
    from distillbench.methods.base import LogitMethod

    if not issubclass(implementation, LogitMethod):
        where = components.methods()[name].get("file", name)
        raise UserError(f"{where}: {name} has a temperature and is no LogitMethod; derive it from one, or leave it out")

"""Distillation methods, one file each. Nothing lists them: a file here that declares a `Method` is one."""

from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location

from distillbench.config import components
from distillbench.errors import UserError

DECLARED = ("keys", "teacher", "views", "temperature", "version")


def build_method(specification, context):
    """The method of a run, with its gradient scaling if it has one.

    specification: `Specification` of what this code does; context: `methods.base.Context`.
    """
    from distillbench.gradient_scaling import GradientScaling

    name = specification["method"]["name"]
    declared = components.methods()[name]
    implementation = method_class(name)
    hyperparameters = specification.parameters("method")
    if not specification["gradient_scaling"]:
        return implementation(hyperparameters, context)
    temperature = hyperparameters[declared["temperature"]]
    scaling = GradientScaling(specification.parameters("gradient_scaling"), temperature)
    return implementation(hyperparameters, context, (scaling,))


def method_class(name):
    """The class of a method. Raises UserError if it does not fit its declaration."""
    from distillbench.methods.base import Method

    declared = components.methods()[name]
    module = (
        _own_module(declared) if "file" in declared else import_module(f"distillbench.methods.{declared['module']}")
    )
    found = next((c for c in vars(module).values() if getattr(c, "name", None) == name), None)
    where = declared.get("file", name)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise UserError(f"{where}: {name} is not a subclass of distillbench.methods.base.Method; derive it from one")
    for attribute in DECLARED:
        if getattr(found, attribute) != declared[attribute]:
            remedy = f"write `{attribute} = ...` with literals in the class's own body"
            raise UserError(f"{where}: {name} inherits or computes its {attribute}; {remedy}")
    return found


def _own_module(declared):
    specification = spec_from_file_location(f"distillbench_own_{declared['module']}", declared["file"])
    module = module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{declared['file']}: cannot be imported ({reason})") from error
    return module

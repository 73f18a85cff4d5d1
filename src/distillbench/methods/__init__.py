"""Distillation methods, one file each. Nothing lists them: a file here that declares a `Method` is one."""

from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location

from distillbench.config import components
from distillbench.errors import UserError, one_of

DECLARED = ("keys", "needs", "views", "temperature", "version")


def build_method(specification, context):
    """The method of a run, with its gradient scaling if it has one.

    specification: `Specification`; context: `methods.base.Context`.
    Raises UserError if the method's own file is not the one that the run was planned with.
    """
    from distillbench.gradient_scaling import GradientScaling

    name, planned = specification["method"]["name"], specification["method"].get("source_sha256")
    if name not in components.methods():
        raise UserError(f"{specification.id}: {one_of(name, components.methods(), 'method')}")
    declared = components.methods()[name]
    if declared.get("sha256") != planned:
        where = declared.get("file", "the package")
        raise UserError(f"{where}: {name} is not as it was when {specification.id} was planned; plan the suite again")
    implementation = method_class(name)
    hyperparameters = specification.parameters("method")
    if not specification["gradient_scaling"]:
        return implementation(hyperparameters, context)
    temperature = hyperparameters[declared["temperature"]]
    scaling = GradientScaling(specification.parameters("gradient_scaling"), temperature)
    return implementation(hyperparameters, context, scaling)


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

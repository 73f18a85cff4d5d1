"""What methods, networks, datasets and trainers declare about themselves, read without importing them.

Declarations are literals in the component's own file (`name = "KD"`, `keys = {"TEMPERATURE": Key(4.0, ...)}`).
Planning a suite must not import torch, so they are read from the syntax tree: the file is parsed, never
executed. Adding a component is adding a file to its folder.
"""

from functools import cache
from pathlib import Path

from distillbench.config.declarations import DATASET, FAMILY, METHOD, SCALING, TRAINER, read_declaration
from distillbench.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
KINDS = {"methods": METHOD, "models": FAMILY, "data": DATASET, "engine/trainers": TRAINER}  # by folder
own_methods = {}  # methods in files of the user's own, by name; see config/method_files.py


def read_declarations(path):
    """What a file in a folder of components declares, or None; see `declarations.read_declaration`."""
    return read_declaration(path, KINDS[path.parent.relative_to(PACKAGE).as_posix()], optional=True)


def _registry(folder):
    found = {}
    for path in sorted((PACKAGE / folder).glob("*.py")):
        if declared := read_declarations(path):
            _add(found, declared["name"], declared, path)
    return found


def _add(found, name, declared, path):
    """Raises UserError, naming both files, if there is one of that name."""
    if name in found:
        other = path.with_name(f"{found[name]['module']}.py")
        raise UserError(f"{path}: the name {name} is declared in {other} too; choose another")
    found[name] = declared


@cache
def packaged_methods():
    return _registry("methods")


def methods():
    """{name: {version, keys, needs, views, temperature, ...}} of every method, by its `DISTILLER.TYPE`."""
    return {**packaged_methods(), **own_methods}


@cache
def trainers():
    """{name: {version, version_without_margin, node, keys, two_losses, margin}} of every trainer."""
    return _registry("engine/trainers")


def trainer_version(name, parameters, schedule):
    """The version of a trainer's code at these values; one whose margin takes all the momentum may have another.

    parameters, schedule: as in a specification, {"DELTA": 0.075} and {"MOMENTUM": 0.9, ...}.
    """
    declared = trainers()[name]
    spent = declared["margin"] and parameters[declared["margin"]] == schedule["MOMENTUM"]
    return (spent and declared["version_without_margin"]) or declared["version"]


@cache
def datasets():
    """{name: {version, sha256, num_classes, image_size, augmentation, ...}} of every dataset."""
    return _registry("data")


@cache
def gradient_scaling():
    return read_declaration(PACKAGE / "gradient_scaling.py", SCALING)


@cache
def networks():
    """{network: {family, module, version, arguments}}; a family's file declares `networks = {name: arguments}`."""
    found = {}
    for family in _registry("models").values():
        about = {"family": family["name"], "module": family["module"], "version": family["version"]}
        for network, arguments in family["networks"].items():
            _add(found, network, {**about, "arguments": arguments}, PACKAGE / "models" / f"{family['module']}.py")
    return found

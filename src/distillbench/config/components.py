"""What methods, networks, datasets and trainers declare about themselves, read without importing them.

Declarations are literals in the component's own file (`name = "KD"`, `keys = {"TEMPERATURE": Key(4.0, ...)}`).
Planning a suite must not import torch, so they are read from the syntax tree: the file is parsed, never
executed. Adding a component is adding a file to its folder.
"""

import ast
from functools import cache
from pathlib import Path

from distillbench.config.keys import Key

PACKAGE = Path(__file__).resolve().parents[1]
own_methods = {}  # methods in files of the user's own, by name; see config/method_files.py


def _literal(node):
    """The value of a literal expression, which may hold calls of `Key` with literal arguments."""
    if isinstance(node, ast.Dict):
        return {_literal(k): _literal(v) for k, v in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Key":
        return Key(*map(_literal, node.args), **{k.arg: _literal(k.value) for k in node.keywords})
    return ast.literal_eval(node)


def _literals(body):
    values = {}
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                values[node.targets[0].id] = _literal(node.value)
            except ValueError:
                continue  # not a literal: implementation, not declaration
    return values


def read_declarations(path):
    """The literals of a component's file: those of its class that has a `name`, or those of the module.

    path: a Python file. Returns a dict with at least `name`, `version` and `bibtex` (one entry, or ""), or None if
    it declares nothing.
    """
    tree = ast.parse(Path(path).read_text(encoding="utf-8"), filename=str(path))
    for body in [*(n.body for n in tree.body if isinstance(n, ast.ClassDef)), tree.body]:
        values = _literals(body)
        if "name" in values and "version" in values:
            return {"bibtex": "", **values, "module": Path(path).stem, "doc": ast.get_docstring(tree) or ""}
    return None


def _registry(folder):
    found = [read_declarations(path) for path in sorted((PACKAGE / folder).glob("*.py"))]
    return {values["name"]: values for values in found if values}


METHOD_DEFAULTS = {"keys": {}, "needs": (), "views": 1, "temperature": None}


@cache
def packaged_methods():
    return {name: {**METHOD_DEFAULTS, **values} for name, values in _registry("methods").items()}


def methods():
    """{name: {version, keys, needs, views, temperature, ...}} of every method, by its `DISTILLER.TYPE`."""
    return {**packaged_methods(), **own_methods}


@cache
def trainers():
    """{name: {version, version_without_margin, node, keys, two_losses, margin}} of every trainer, by `SOLVER.TRAINER`.

    two_losses: whether it needs a distillation loss; margin: the key that the momentum has to leave room for.
    """
    defaults = {"keys": {}, "node": None, "two_losses": False, "margin": None, "version_without_margin": None}
    return {name: {**defaults, **values} for name, values in _registry("engine/trainers").items()}


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
    return read_declarations(PACKAGE / "gradient_scaling.py")


@cache
def networks():
    """{network: {family, version, arguments}}; a family's file declares `networks = {name: arguments}`."""
    return {
        network: {
            "family": family["name"],
            "module": family["module"],
            "version": family["version"],
            "arguments": arguments,
        }
        for family in _registry("models").values()
        for network, arguments in family["networks"].items()
    }

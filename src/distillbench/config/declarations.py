"""Declarations of components: literals in a component's own file, read from its syntax tree and never executed.

One reader and one set of rules for the package's files and for methods in files of the user's own.
"""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from distillbench.config.keys import UNSET, Key
from distillbench.errors import UserError

NAME = r"[A-Za-z][A-Za-z0-9_]*"
NEEDS = ((), ("teacher_logits",), ("teacher_logits", "teacher_features"))
IDENTITY = {"name", "version"}  # what assigns both is a declaration
REQUIRED = object()


class Field(NamedTuple):
    """An attribute of a declaration. problem: what is wrong with a value, given all values, or None."""

    problem: Callable[[Any, dict], str | None]
    default: Any = REQUIRED


class Kind(NamedTuple):
    """A kind of component: what it is called, and the attributes of its class, or of its module."""

    what: str
    in_class: bool
    fields: dict[str, Field]


def read_declaration(path, kind, label=None, optional=False):
    """{attribute: value} of the component that a file declares, with `module` and `doc`.

    path: a Python file; kind: `Kind`; label: what messages call the file; optional: whether the file may declare none,
    which gives None. Raises UserError (file, attribute, remedy) for a file that is not Python, or a declaration that is
    not literal, not complete or not valid.
    """
    label = label or path
    tree = parse(path, label)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    blocks, elsewhere = (classes, [tree]) if kind.in_class else ([tree], classes)
    begun = [block for block in blocks if IDENTITY & _assigned(block.body)]
    complete = [block for block in blocks if _assigned(block.body) >= IDENTITY]
    if optional and not begun and not any(_assigned(block.body) >= IDENTITY for block in elsewhere):
        return None
    if not complete:
        place = "a class with" if kind.in_class else "in the module itself"
        raise UserError(f"{label}: declares no {kind.what}; write {place} `name = ...` and `version = 1`")
    if len(complete) > 1:
        raise UserError(f"{label}: declares {len(complete)} {kind.what}s; write one a file")
    try:
        values = _declared(complete[0], kind)
    except UserError as error:
        raise UserError(f"{label}: {error}") from None
    if kind is METHOD:
        values["teacher"] = values["teacher"] or dict(zip(NEEDS, ("none", "logits", "network")))[values["needs"]]
        values["needs"] = () if values["teacher"] == "none" else (values["teacher"],)
    return {**values, "module": Path(path).stem, "doc": ast.get_docstring(tree) or ""}


def parse(path, label):
    """The syntax tree of a file. Raises UserError if it is not Python."""
    try:
        return ast.parse(Path(path).read_text(encoding="utf-8"), filename=str(path))
    except FileNotFoundError:
        raise UserError(f"{label}: no such file; the path is relative to the project") from None
    except SyntaxError as error:
        raise UserError(f"{label}, line {error.lineno}: {error.msg}; correct the file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{label}: not readable as Python ({error}); correct the file") from None


def _declared(block, kind):
    """The fields of a class or module. Raises UserError, without the file, for the first that is wrong."""
    literals, assigned = _literals(block.body), _assigned(block.body)
    for name in kind.fields:
        if name in assigned and name not in literals:
            raise UserError(
                f"{name} must be a literal, assigned once and without annotation, as planning does not run the file"
            )
    values = {name: literals.get(name, field.default) for name, field in kind.fields.items()}
    for name, field in kind.fields.items():
        if values[name] is REQUIRED:
            raise UserError(f"{name} is missing; write `{name} = ...` with a literal")
        if problem := field.problem(values[name], values):
            raise UserError(problem if problem.startswith("key") else f"{name} {problem}")
    return values


def _literal(node):
    """The value of a literal expression, which may hold calls of `Key` with literal arguments."""
    if isinstance(node, ast.Dict):
        return {_literal(k): _literal(v) for k, v in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Key":
        arguments = list(map(_literal, node.args))
        options = {k.arg: _literal(k.value) for k in node.keywords}
        try:
            return Key(*arguments, **options)
        except TypeError as error:
            raise UserError(f"Key(...): {error}; correct the declaration") from None
    return ast.literal_eval(node)


def _literals(body):
    """{name: value} of the literals that a class or module assigns, each once and in its own body."""
    values, once = {}, _assignments(body)
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if once.count(name) > 1:
                continue
            try:
                values[name] = _literal(node.value)
            except (ValueError, TypeError, RecursionError):
                continue  # not a literal: implementation, not declaration
    return values


def _assigned(body):
    return set(_assignments(body))


def _assignments(body):
    """Names that statements assign, in any way and in blocks within, each as often as it is assigned."""
    found = []
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.AnnAssign) and node.value is None:
            targets = []
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            found += [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        for block in ("body", "orelse", "finalbody"):
            found += _assignments(getattr(node, block, ()))
        found += _assignments(getattr(node, "handlers", ()))
    return found


# What a value must be


def _must(valid, expected):
    return lambda value, values: None if valid(value, values) else f"must be {expected}"


def _whole(value):
    return type(value) is int and value > 0


def _name(value, values):
    fine = isinstance(value, str) and re.fullmatch(NAME, value)
    return None if fine else f"{value!r} must be a text of letters, digits and _"


def _keys(keys, values):
    if not isinstance(keys, dict) or not all(isinstance(k, str) and isinstance(v, Key) for k, v in keys.items()):
        return 'must be a mapping of texts to Key(default, "help"), e.g. {"WEIGHT": Key(1.0, "of the loss")}'
    for key, declared in keys.items():
        if not re.fullmatch(rf"{NAME}(\.{NAME})*", key) or any(other.startswith(f"{key}.") for other in keys):
            return f"key {key!r} must be letters, digits and _, dotted at most, and no node of another key"
        if not isinstance(declared.default, (bool, int, float, str, list)) or not isinstance(declared.help, str):
            return (
                f"key {key}: the default must be a number, text, true or false, or a list of integers, the help a text"
            )
        try:
            declared.check(declared.default, f"key {key}: the default")
            if declared.gkd != UNSET:
                declared.check(declared.gkd, f"key {key}: the default of the GKD repository")
        except UserError as error:
            return str(error)
        except TypeError:  # of a bound that is no number, choices that are no texts
            return f"key {key}: minimum, above and maximum must be numbers, choices a tuple of texts"
    return None


def _networks(value, values):
    fine = isinstance(value, dict) and value and all(isinstance(arguments, dict) for arguments in value.values())
    if fine and all(isinstance(name, str) and re.fullmatch("[A-Za-z0-9_]+", name) for name in value):
        return None
    return 'must be a mapping of networks to arguments, e.g. {"resnet8": {"depth": 8}}'


def _augmentation(value, values):
    fine = isinstance(value, dict) and value.keys() == {"crop_padding", "flip"}
    if fine and type(value["crop_padding"]) is int and value["crop_padding"] >= 0 and type(value["flip"]) is bool:
        return None
    return 'must be a mapping like {"crop_padding": 4, "flip": True}'


def _is_colour(value, values):
    return isinstance(value, tuple) and len(value) == 3 and all(type(entry) in (int, float) for entry in value)


COMMON = {
    "name": Field(_name),
    "version": Field(_must(lambda value, _: _whole(value), "a positive integer")),
    "bibtex": Field(_must(lambda value, _: isinstance(value, str), 'a text, """@article{key, ...}"""'), ""),
}
WHOLE = Field(_must(lambda value, _: _whole(value), "a positive integer"))
COLOUR = Field(_must(_is_colour, "three numbers, a channel each"))

ONE_OF_ITS_KEYS = Field(
    _must(lambda value, values: value in (None, *values["keys"]), "the name of one of its keys"), None
)
METHOD = Kind(
    "method",
    True,
    COMMON
    | {
        "keys": Field(_keys, {}),
        "teacher": Field(_must(lambda value, _: value in (None, "none", "logits", "network"), "text"), None),
        "needs": Field(_must(lambda value, _: value in NEEDS, f"one of {', '.join(map(str, NEEDS))}"), ()),
        "views": Field(WHOLE.problem, 1),
        "temperature": ONE_OF_ITS_KEYS,
    },
)
# two_losses: whether it needs a distillation loss; margin: the key that the momentum has to leave room for;
# version_without_margin: the version where it leaves none, if that is another.
TRAINER = Kind(
    "trainer",
    True,
    COMMON
    | {
        "keys": Field(_keys, {}),
        "node": Field(
            _must(
                lambda value, values: (
                    re.fullmatch(rf"{NAME}(\.{NAME})*", value) is not None
                    if isinstance(value, str)
                    else value is None and not values["keys"]
                ),
                "the node of its keys, e.g. SOLVER.DOT",
            ),
            None,
        ),
        "version_without_margin": Field(
            _must(lambda value, _: value is None or _whole(value), "a positive integer"), None
        ),
        "two_losses": Field(_must(lambda value, _: type(value) is bool, "True or False"), False),
        "margin": ONE_OF_ITS_KEYS,
    },
)
DATASET = Kind(
    "dataset",
    False,
    COMMON
    | {
        "sha256": Field(
            _must(lambda v, _: isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v), "a digest of 64 hex digits")
        ),
        "num_classes": WHOLE,
        "image_size": WHOLE,
        "mean": COLOUR,
        "std": COLOUR,
        "augmentation": Field(_augmentation),
    },
)
FAMILY = Kind("family of networks", False, COMMON | {"networks": Field(_networks)})
SCALING = Kind("gradient scaling", True, COMMON | {"keys": Field(_keys)})

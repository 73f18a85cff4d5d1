"""Declarations of components: literals in a component's own file, read from its syntax tree and never executed.

One reader and one set of rules for the package's files and for files of the user's own; what a kind of
component declares stands in kinds.py.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from distillbench.config.keys import Key
from distillbench.errors import UserError

IDENTITY = {"name", "version"}  # what assigns both is a declaration
REQUIRED = object()


class Field(NamedTuple):
    """An attribute of a declaration. problem: what is wrong with a value, given all values, or None."""

    problem: Callable[[Any, dict], str | None]
    default: Any = REQUIRED


class Kind(NamedTuple):
    """A kind of component.

    what: its name in messages; folder: of the package, where its files are, also in folders below; in_class: whether
    the attributes are those of a class or of the module itself; finished: completes the values of the fields, for
    fields that may be written in more than one way.
    """

    what: str
    folder: str
    in_class: bool
    fields: dict[str, Field]
    finished: Callable[[dict], dict] = dict


def read_declaration(path, kind, module=None, label=None, optional=False):
    """{attribute: value} of the component that a file declares, with `class` (None: the module), `module` and `path`.

    path: a Python file; kind: `Kind`; module: its dotted name below the kind's folder (default: the file's name);
    label: what messages call the file; optional: whether the file may declare none, which gives None. Raises UserError
    (file, attribute, remedy) for a file that is not Python, or a declaration that is not literal, not complete or not
    valid.
    """
    label = label or path
    tree = parse(path, label)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    blocks, elsewhere = (classes, [tree]) if kind.in_class else ([tree], classes)
    begun = [block for block in blocks if IDENTITY & assigned(block.body)]
    complete = [block for block in blocks if assigned(block.body) >= IDENTITY]
    if optional and not begun and not any(assigned(block.body) >= IDENTITY for block in elsewhere):
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
    values |= {"class": getattr(complete[0], "name", None), "module": module or Path(path).stem, "path": path}
    return values


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
    literals, names = _literals(block.body), assigned(block.body)
    for name in kind.fields:
        if name in names and name not in literals:
            raise UserError(f"{name} must be a literal, assigned once, as planning does not run the file")
    values = {name: literals.get(name, field.default) for name, field in kind.fields.items()}
    for name, field in kind.fields.items():
        if values[name] is REQUIRED:
            raise UserError(f"{name} is missing; write `{name} = ...` with a literal")
        if problem := field.problem(values[name], values):
            raise UserError(problem if problem.startswith("key") else f"{name} {problem}")
    return kind.finished(values)


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
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and len(targets) == 1 and isinstance(targets[0], ast.Name):
            name = targets[0].id
            if once.count(name) != 1:  # 0: an annotation alone
                continue
            try:
                values[name] = _literal(node.value)
            except (ValueError, TypeError, RecursionError):
                continue  # not a literal: implementation, not declaration
    return values


def assigned(body):
    """The names that the statements of a class or module assign, in any way."""
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

"""Methods in files of the user's own, outside the package. Parsed like the package's, never executed for planning."""

import ast
import hashlib
import json
import re
from pathlib import Path

from distillbench.config import components, schema
from distillbench.errors import UserError

NAME = r"[A-Za-z][A-Za-z0-9_]*"
LITERALS = ("name", "version", "keys", "needs", "views", "temperature")


def use(files, root=".", where="method file"):
    """Make exactly the methods in these files available, beside the package's.

    files: paths relative to root; where: for messages. Raises UserError (file and remedy) for a file without a
    method, with a declaration that is not literal, or with a name that is taken.
    """
    found = {}
    for file in files:
        declared = read(file, root, where)
        name = declared["name"]
        if name in {*components.packaged_methods(), *found, *_reserved()}:
            raise UserError(f"{where}: {file}: the name {name} is taken; choose another `name`")
        found[name] = declared
    if found != components.own_methods:
        components.own_methods.clear()
        components.own_methods.update(found)
        for cached in (schema.base_keys, schema.method_keys, schema.all_keys):
            cached.cache_clear()


def read(file, root=".", where="method file"):
    """What a method's file declares, with `file` and `sha256`, the digest of its source."""
    try:
        text = (Path(root) / file).read_text(encoding="utf-8")
        tree = ast.parse(text, filename=str(file))
    except FileNotFoundError:
        raise UserError(f"{where}: {file}: no such file; the path is relative to the project") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {file}: not readable as Python ({error}); correct the file") from None
    except SyntaxError as error:
        raise UserError(f"{where}: {file}, line {error.lineno}: {error.msg}; correct the file") from None
    try:
        declared = components.read_declarations(Path(root) / file)
    except TypeError as error:  # a Key that does not exist so
        raise UserError(f"{where}: {file}: Key(...): {error}; correct the declaration") from None
    if declared is None:
        raise UserError(f"{where}: {file}: declares no method; write a class with `name = ...` and `version = 1`")
    if not isinstance(declared["name"], str) or not re.fullmatch(NAME, declared["name"]):
        raise UserError(f"{where}: {file}: name {declared['name']!r} must be a text of letters, digits and _")
    for attribute in _assigned_in_named_classes(tree):
        if attribute in LITERALS and attribute not in declared:
            raise UserError(f"{where}: {file}: {attribute} must be a literal, as planning does not run the file")
    return {**components.METHOD_DEFAULTS, **declared, "file": str(file), "sha256": source_digest(tree)}


def source_digest(tree):
    """SHA-256 of a syntax tree without docstrings, comments, layout and `bibtex`; the same on every Python."""
    return hashlib.sha256(json.dumps(_canonical(tree)).encode()).hexdigest()


def _canonical(node):
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and _documented(node):
            fields["body"] = fields["body"][1:]
        return [type(node).__name__, {name: _canonical(value) for name, value in sorted(fields.items())}]
    if isinstance(node, list):
        return [_canonical(entry) for entry in node if not _is_reference(entry)]
    return f"{type(node).__name__} {node!r}"


def _is_reference(node):
    return isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["bibtex"]


def _documented(node):
    return ast.get_docstring(node, clean=False) is not None


def _assigned_in_named_classes(tree):
    """Names that the bodies of classes with a `name` assign."""
    bodies = [
        [target.id for n in node.body if isinstance(n, ast.Assign) for target in n.targets if hasattr(target, "id")]
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    ]
    return [name for body in bodies if "name" in body for name in body]


def _reserved():
    """First parts of the package's own keys: SOLVER, GKD, ..."""
    return {key.partition(".")[0] for key in (*schema.base_keys(), *schema.scaling_keys(), *schema.alias_keys())}

"""Methods in files of the user's own, outside the package. Parsed like the package's, never executed for planning."""

import ast
import hashlib
import json
from pathlib import Path

from distillbench.config import components, schema
from distillbench.config.declarations import parse, read_declaration
from distillbench.config.kinds import METHOD
from distillbench.errors import UserError


def use(files, root=".", where="method file"):
    """Make exactly the methods in these files available, beside the package's.

    files: paths relative to root; where: for messages. Raises UserError (file and remedy) for a file without a
    method, with a declaration that is not literal, or with a name that is taken.
    """
    found = {}
    for file in files:
        declared = read(file, root, where)
        name = declared["name"]
        taken = {other.lower() for other in (*components.packaged_methods(), *found, *_reserved())}
        if name.lower() in taken:  # the directory of its runs is lower case
            raise UserError(f"{where}: {file}: the name {name} is taken; choose another `name`")
        if declared["node"].partition(".")[0] in _reserved():
            raise UserError(f"{where}: {file}: the node {declared['node']} is taken; choose another `node`")
        found[name] = declared
    components.require_one_key_a_name(*found.values())
    if found != components.own_methods:
        components.own_methods.clear()
        components.own_methods.update(found)
        schema.base_keys.cache_clear()
        schema.all_keys.cache_clear()


def read(file, root=".", where="method file"):
    """What a method's file declares, with `file` and `sha256`, the digest of its source."""
    path, label = Path(root) / file, f"{where}: {file}"
    return {
        **read_declaration(path, METHOD, label=label),
        "file": str(file),
        "sha256": source_digest(parse(path, label)),
    }


def source_digest(tree):
    """SHA-256 of a syntax tree without docstrings, comments, layout and `bibtex`; the same on every Python."""
    return hashlib.sha256(json.dumps(_canonical(tree)).encode()).hexdigest()


def _canonical(node):
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind"}
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and _documented(node):
            fields["body"] = fields["body"][1:]
        if isinstance(node, ast.ClassDef):
            fields["body"] = [entry for entry in fields["body"] if not _is_reference(entry)]
        return [type(node).__name__, {name: _canonical(value) for name, value in sorted(fields.items())}]
    return [_canonical(entry) for entry in node] if isinstance(node, list) else f"{type(node).__name__} {node!r}"


def _is_reference(node):
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    named = [getattr(target, "id", "") for target in targets] == ["bibtex"]
    return named and isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Constant)


def _documented(node):
    return ast.get_docstring(node, clean=False) is not None


def _reserved():
    """First parts of the package's keys that are no method's: SOLVER, LOG, ..."""
    nodes = {declared["node"] for declared in components.transforms().values()}
    return {key.partition(".")[0] for key in (*schema.base_keys(), *nodes, *components.aliases())}

"""Methods and networks in files of the user's own, outside the package.

They are parsed like the package's and never executed for planning.
"""

import ast
import hashlib
import json
from pathlib import Path

from distillbench.config import components, schema
from distillbench.config.declarations import assigned, parse, read_declaration
from distillbench.config.kinds import METHOD, OWN_FAMILY
from distillbench.errors import UserError


def use(methods=(), networks=(), root=".", file_of=None):
    """Make exactly the methods and networks in these files available, beside the package's.

    methods, networks: paths relative to root; file_of: of a suite's section the file that it stands in, for messages.
    Raises UserError (file and remedy) for a file without a method or network, with a declaration that is not literal,
    or with a name that is taken.
    """

    def label(what):
        return f"{file_of(f'{what}_files')}: {what}_files" if file_of else f"{what} file"

    found = _methods(methods, root, label("method"))
    own_networks = _networks(networks, root, label("network"))
    components.require_one_key_a_name(*found.values())
    if found != components.own_methods:
        components.own_methods.clear()
        components.own_methods.update(found)
        schema.base_keys.cache_clear()
        schema.all_keys.cache_clear()
    components.own_networks.clear()
    components.own_networks.update(own_networks)


def _methods(files, root, where):
    found = {}
    for file in files:
        declared = read(file, METHOD, root, where)
        name = declared["name"]
        _require_free(name, (*components.packaged_methods(), *found, *_reserved()), f"{where}: {file}")
        if declared["node"].partition(".")[0] in _reserved():
            raise UserError(f"{where}: {file}: the node {declared['node']} is taken; choose another `node`")
        found[name] = declared
    return found


def _networks(files, root, where):
    found, packaged = {}, [name for zoo in components.zoos().values() for name in zoo]
    for file in files:
        for name, declared in components.members([read(file, OWN_FAMILY, root, where)]).items():
            _require_free(name, (*packaged, *found), f"{where}: {file}")
            found[name] = declared
    return found


def _require_free(name, taken, where):
    if name.lower() in {other.lower() for other in taken}:  # some file systems do not tell the two apart
        raise UserError(f"{where}: the name {name} is taken; choose another `name`")


def read(file, kind=METHOD, root=".", where="file"):
    """What a file declares, with `file` and `sha256`, the digest of its source. kind: METHOD or OWN_FAMILY."""
    path, label = Path(root) / file, f"{where}: {file}"
    return {
        **read_declaration(path, kind, label=label),
        "file": str(file),
        "sha256": source_digest(parse(path, label), without_reference=not kind.in_class),
    }


def kind_of(file):
    """OWN_FAMILY where the module assigns `networks`, else METHOD."""
    return OWN_FAMILY if "networks" in assigned(parse(file, file).body) else METHOD


def source_digest(tree, without_reference=False):
    """SHA-256 of a syntax tree without docstrings, comments, layout and `bibtex`; the same on every Python.

    without_reference: whether the module's own `bibtex` does not count either; that of its classes never does.
    """
    if without_reference:
        tree = ast.Module([entry for entry in tree.body if not _is_reference(entry)], [])
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

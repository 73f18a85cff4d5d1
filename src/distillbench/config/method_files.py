"""Methods in files of the user's own, outside the package. Parsed like the package's, never executed for planning."""

import ast
import hashlib
import json
import re
from pathlib import Path

from distillbench.config import components, schema
from distillbench.config.keys import Key
from distillbench.errors import UserError

NAME = r"[A-Za-z][A-Za-z0-9_]*"
LITERALS = ("name", "version", "keys", "needs", "views", "temperature", "bibtex")
NEEDS = ((), ("teacher_logits",), ("teacher_logits", "teacher_features"))


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
    problem = _problem(tree, declared)
    if problem:
        raise UserError(f"{where}: {file}: {problem}")
    return {**components.METHOD_DEFAULTS, **declared, "file": str(file), "sha256": source_digest(tree)}


def _problem(tree, declared):
    """What is wrong with a file's declaration and what would be right, or None."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and "name" in _assigned(node)]
    if declared is None or not classes:
        return "declares no method; write a class with `name = ...` and `version = 1`"
    for attribute in LITERALS:
        if any(attribute in _assigned(node) for node in classes) and attribute not in declared:
            return f"{attribute} must be a literal, assigned without annotation, as planning does not run the file"
    values = {**components.METHOD_DEFAULTS, **declared}
    name, keys = values["name"], values["keys"]
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        return f"name {name!r} must be a text of letters, digits and _"
    if not isinstance(keys, dict) or not all(isinstance(k, str) and isinstance(v, Key) for k, v in keys.items()):
        return 'keys must be a mapping of texts to Key(default, "help"), e.g. {"WEIGHT": Key(1.0, "of the loss")}'
    for key, schema_key in keys.items():
        if not re.fullmatch(rf"{NAME}(\.{NAME})*", key) or any(other.startswith(f"{key}.") for other in keys):
            return f"key {key!r} must be letters, digits and _, dotted at most, and no node of another key"
        if not isinstance(schema_key.default, (bool, int, float, str, list)) or not isinstance(schema_key.help, str):
            return (
                f"key {key}: the default must be a number, text, true or false, or a list of integers, the help a text"
            )
        try:
            schema_key.check(schema_key.default, f"key {key}: the default")
        except UserError as error:
            return str(error)
    expected = {
        "version": (type(values["version"]) is int and values["version"] > 0, "a positive integer"),
        "needs": (values["needs"] in NEEDS, f"one of {', '.join(map(str, NEEDS))}"),
        "views": (type(values["views"]) is int and values["views"] > 0, "a positive integer"),
        "temperature": (values["temperature"] in (None, *keys), "the name of one of its keys"),
        "bibtex": (isinstance(values.get("bibtex", ""), str), 'a text, """@article{key, ...}"""'),
    }
    return next((f"{what} must be {right}" for what, (fine, right) in expected.items() if not fine), None)


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
    return (
        isinstance(node, ast.Assign)
        and [getattr(target, "id", "") for target in node.targets] == ["bibtex"]
        and isinstance(node.value, ast.Constant)
    )


def _documented(node):
    return ast.get_docstring(node, clean=False) is not None


def _assigned(node):
    """Names that the body of a class assigns, annotated or not."""
    targets = [target for n in node.body if isinstance(n, ast.Assign) for target in n.targets]
    targets += [n.target for n in node.body if isinstance(n, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _reserved():
    """First parts of the package's own keys: SOLVER, GKD, ..."""
    return {key.partition(".")[0] for key in (*schema.base_keys(), *schema.scaling_keys(), *schema.alias_keys())}

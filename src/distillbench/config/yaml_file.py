"""Strict reading of params files: what YAML would silently change is an error of one line."""

from pathlib import Path

import yaml

from distillbench.errors import UserError


class _StrictLoader(yaml.SafeLoader):
    pass


def _mapping(loader, node):
    result = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        where = f"line {key_node.start_mark.line + 1}"
        if not isinstance(key, str):
            text = key_node.value if isinstance(key_node, yaml.ScalarNode) else "..."
            raise UserError(f'{where}: YAML reads the key {text} as {key!r}; write "{text}" in quotes')
        if key in result:
            raise UserError(f"{where}: the key {key!r} stands twice in one mapping; remove one")
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path):
    """The mapping in a YAML file. Raises UserError (file, line, remedy) for anything else."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        content = yaml.load(text, Loader=_StrictLoader)
    except UserError as error:
        raise UserError(f"{path}, {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an impossible date
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).split())
        raise UserError(f"{path}{line}: not valid YAML ({problem}); check indentation, colons and quotes") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of keys to values, found {type(content).__name__}")
    return content

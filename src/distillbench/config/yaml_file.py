"""Strict reading of params files: what YAML would silently change is an error of one line."""

import datetime
import re
from pathlib import Path

import yaml

from distillbench.errors import UserError

TAG = "tag:yaml.org,2002:"
UNAMBIGUOUS = re.compile(  # what YAML 1.1, YAML 1.2 and people read alike, apart from text
    r"[-+]?(0|[1-9][0-9]*)"
    r"|[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    r"|true|True|TRUE|false|False|FALSE|null|Null|NULL|~|"
)
OTHER_NUMBER = re.compile(r"[-+]?0o?[0-9_]+")  # text to YAML 1.1 where it is not octal to it: 08, 0o17
MAX_VALUES = 100_000  # with aliases written out, which may stand for each other


class _StrictLoader(yaml.SafeLoader):
    def compose_node(self, parent, index):
        event = self.peek_event()
        if getattr(event, "tag", None):
            raise UserError(f"{_line(event)}: the tag {_written_tag(event.tag)} is not valid here; remove it")
        return super().compose_node(parent, index)

    def get_single_node(self):
        node = super().get_single_node()
        if node is not None and _size(node, {}) > MAX_VALUES:
            raise UserError(f"{_line(node)}: its aliases stand for more than {MAX_VALUES} values; write fewer")
        return node


def _line(place):
    return f"line {place.start_mark.line + 1}"


def _written_tag(tag):
    return f"!!{tag.removeprefix(TAG)}" if tag.startswith(TAG) else tag


def _size(node, known):
    """Number of values in a node, each alias counted as what it stands for."""
    if id(node) not in known:
        known[id(node)] = 0  # while it is counted: a circle is refused when it is constructed
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            children = [side for pair in children for side in pair]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def _scalar(loader, node):
    """A number, truth value or date. Raises UserError where it is written so that readers differ."""
    value = _value(loader, node)
    _check_plain(node, value)
    return value


def _value(loader, node):
    """What YAML 1.1 reads."""
    try:
        return yaml.SafeLoader.yaml_constructors.get(node.tag, _sign)(loader, node)
    except ValueError as error:  # 2024-13-45
        raise UserError(
            f'{_line(node)}: {node.value} is not valid YAML 1.1 ({error}); write "{node.value}" in quotes for a text'
        ) from None


def _sign(loader, node):
    raise UserError(f'{_line(node)}: {node.value} is a sign of YAML 1.1; write "{node.value}" in quotes for a text')


def _text(loader, node):
    if node.style is None and OTHER_NUMBER.fullmatch(node.value):
        _check_plain(node, node.value)
    return node.value


def _check_plain(node, value):
    if node.style is None and not UNAMBIGUOUS.fullmatch(node.value):
        quoted = f'"{node.value}" in quotes for a text'
        meant = ", ".join(dict.fromkeys(_meant(node.value, value)))
        remedy = f"{meant}, or {quoted}" if meant else quoted
        raise UserError(f"{_line(node)}: YAML 1.1 reads {node.value} as {_shown(value)}; write {remedy}")


def _meant(text, value):
    """The unambiguous spellings of what somebody may have meant."""
    if isinstance(value, bool):
        yield str(value).lower()
        return
    if isinstance(value, (int, float)):
        yield str(value)
    if octal := re.fullmatch(r"([-+]?)0o([0-7_]+)", text):
        yield octal[1] + str(int(octal[2], 8))
    elif re.fullmatch(r"[-+]?[0-9_]+", text):
        yield str(int(text.replace("_", "")))


def _shown(value):
    return f"the date {value}" if isinstance(value, datetime.date) else repr(value)


def _mapping(loader, node):
    result, merged = {}, None
    for key_node, value_node in node.value:
        if key_node.tag == f"{TAG}merge":
            if merged is not None:
                raise UserError(f"{_line(key_node)}: << stands twice in one mapping; write <<: [*first, *second]")
            merged = _merged(loader, value_node)
            continue
        key = _key(loader, key_node)
        if key in result:
            raise UserError(f"{_line(key_node)}: the key {key!r} stands twice in one mapping; remove one")
        result[key] = loader.construct_object(value_node, deep=True)
    return _over(result, merged) if merged else result


def _key(loader, node):
    if not isinstance(node, yaml.ScalarNode):
        key, text = loader.construct_object(node, deep=True), "..."
    else:
        key, text = _value(loader, node), node.value
    if not isinstance(key, str):
        raise UserError(f'{_line(node)}: YAML reads the key {text} as {key!r}; write "{text}" in quotes')
    return key


def _merged(loader, node):
    """What `<<` merges: a mapping, or a list of mappings of which the first counts most."""
    found = loader.construct_object(node, deep=True)
    below = found if isinstance(node, yaml.SequenceNode) else [found]
    result = {}
    for mapping in below:
        if not isinstance(mapping, dict):
            raise UserError(f"{_line(node)}: << takes mappings, e.g. <<: *name or <<: [*first, *second]")
        result = _over(result, mapping)
    return result


def _over(above, below):
    """Both mappings in one. What stands above hides what has the same key below, be it dotted or nested there."""
    kept = _without(below, set(_paths(above)))
    return {**{key: value for key, value in kept.items() if key not in above}, **above}


def merged(below, above):
    """Two mappings in one, by key: mappings under one key are merged, of all else what stands above counts.

    A key may be written dotted in one of them and nested in the other. Those of `below` come first, in their order.
    """
    return _joined(below, _without(below, set(_paths(above))), above)


def _joined(below, kept, above):
    """`merged`, with what of `below` nothing above hides."""
    found = {**kept, **above}
    for key in kept.keys() & above.keys():
        if isinstance(kept[key], dict) and isinstance(above[key], dict):
            found[key] = _joined(below[key], kept[key], above[key])
    return {key: found[key] for key in dict.fromkeys((*below, *above)) if key in found}


def _paths(mapping, above=()):
    for key, value in mapping.items():
        path = (*above, *key.split("."))
        if isinstance(value, dict) and value:
            yield from _paths(value, path)
        else:
            yield path


def _without(mapping, paths, above=()):
    kept = {}
    for key, value in mapping.items():
        path = (*above, *key.split("."))
        if isinstance(value, dict) and value:
            if inner := _without(value, paths, path):
                kept[key] = inner
        elif path not in paths:
            kept[key] = value
    return kept


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.add_constructor(f"{TAG}str", _text)
for _kind in ("int", "float", "bool", "timestamp"):
    _StrictLoader.add_constructor(TAG + _kind, _scalar)
for _kind in ("merge", "value"):
    _StrictLoader.add_constructor(TAG + _kind, _sign)


class _StrictDumper(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


_StrictDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar(f"{TAG}str", text, '"' if OTHER_NUMBER.fullmatch(text) else None)
)


def as_yaml(content):
    """The text of a file that `read_yaml` reads as the same content."""
    return yaml.dump(content, Dumper=_StrictDumper, sort_keys=False, allow_unicode=True, width=120)


def read_yaml(path):
    """The mapping in a YAML file. Raises UserError (file, line, remedy) for anything else.

    Numbers, truth values and dates have to be written so that YAML 1.1 (which reads 010 as 8 and on as true), YAML 1.2
    and people agree on them. `<<` merges mappings.
    """
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
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # ValueError: "\UFFFFFFFF"
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).split())
        raise UserError(f"{path}{line}: not valid YAML ({problem}); check indentation, colons and quotes") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of keys to values, found {type(content).__name__}")
    return content

"""From the keys that somebody wrote to the complete, typed configuration of a run."""

from typing import NamedTuple

from yacs.config import CfgNode

from distillbench.config import components, schema
from distillbench.errors import UserError, one_of


class Written(NamedTuple):
    """Keys as they were written in one place: `values` by dotted key, `nodes` that are there (even if empty)."""

    values: dict
    nodes: frozenset
    where: str  # "params/demo.yaml: methods.KD", for messages

    def over(self, below):
        """These keys on top of others, as `like:` means it."""
        return Written({**below.values, **self.values}, below.nodes | self.nodes, self.where)


class Resolved(NamedTuple):
    """config: frozen yacs node of everything; transforms: names of those that are on; notes: what a dialect changed."""

    config: CfgNode
    transforms: tuple[str, ...]
    notes: tuple[str, ...]


def flatten(mapping, where):
    """`Written` of a mapping of nested nodes and dotted keys, each key known and each value of its type."""
    if not isinstance(mapping, dict):
        raise UserError(f"{where}: expected a mapping of keys to values, found {mapping!r}")
    values, nodes = {}, set()

    def visit(prefix, node):
        for key, value in node.items():
            if not isinstance(key, str):
                raise UserError(f"{where}: the key {key!r} is not text; put it in quotes")
            name = f"{prefix}.{key}" if prefix else key
            if isinstance(value, dict) and (name in _nodes() or name not in schema.all_keys()):
                _known_node(name, where)
                nodes.add(name)
                visit(name, value)
                continue
            key_schema = _known_key(name, where)
            if name in values:
                raise UserError(f"{where}.{name}: stands twice, dotted and nested; remove one")
            values[name] = key_schema.check(value, f"{where}.{name}")
            nodes.update(name[:i] for i, letter in enumerate(name) if letter == ".")

    visit("", mapping)
    return Written(values, frozenset(nodes), where)


def resolve(layers, row):
    """The configuration of a run.

    layers: `Written` of lower rank, first the lowest (base, pair): their values count where the row reads
    them; row: `Written` of the run's own keys: each must be read.
    Raises UserError naming the place of a key that is unknown, unread or in conflict.
    """
    method, keys = _method(row), read_keys(row, layers)
    for name in row.values:
        if name not in keys:
            raise UserError(f"{row.where}.{name}: not read by a row of type {method}; remove it")
    merged = {}
    for layer in (*layers, row):
        merged |= layer.values
    _check_trainer(row, merged)
    alias = components.aliases().get(method)
    dialect = alias["defaults"] if alias else merged.get("DEFAULTS", "mdistiller")
    values, notes, method_keys = {}, [], schema.method_keys(method)
    for name, key in keys.items():
        value = merged.get(name, key.default_in(dialect))
        if dialect == "gkd" and key.ignored_by_gkd and value != key.gkd:
            notes.append(f"{name} {value:g} has no effect in the GKD repository; {key.gkd:g} is used")
            value = key.gkd
        elif name in merged and name in method_keys and not (key.identity or key.ignored_by_gkd):
            notes.append(f"{name} {value} is read, not used: {key.why}")
        values[schema.without_alias(name)] = value
    values["DISTILLER.TYPE"] = _implemented(method)
    return Resolved(_tree(values), transforms_of(row), tuple(notes))


def read_keys(row, layers=()):
    """{dotted key: Key} that a row reads, given what lower layers say of its trainer."""
    method, trainer = _method(row), schema.base_keys()["SOLVER.TRAINER"].default
    for written in (*layers, row):
        trainer = written.values.get("SOLVER.TRAINER", trainer)
    keys = {**schema.base_keys(), **schema.method_keys(method), **schema.trainer_keys(trainer)}
    for transform in transforms_of(row):
        keys |= schema.transform_keys(transform)
    return keys


def needs_teacher(row):
    """Whether a row's method uses anything of a teacher."""
    return components.methods()[_implemented(_method(row))]["teacher"] != "none"


def _method(row):
    if "DISTILLER.TYPE" not in row.values:
        raise UserError(f"{row.where}: DISTILLER.TYPE is missing; write e.g. DISTILLER.TYPE: KD")
    return row.values["DISTILLER.TYPE"]


def _implemented(method):
    """The name of a method, which may be that of an alias."""
    return components.aliases().get(method, {}).get("method", method)


def transforms_of(row):
    """Names of the transforms that are on in a row: their node is there, or the method is an alias for one with it."""
    method, found = _method(row), []
    for name, declared in components.transforms().items():
        if declared["node"] not in row.nodes and components.aliases().get(method, {}).get("transform") != name:
            continue
        if not components.methods()[_implemented(method)]["temperature"]:
            problem = f"{method} has no loss on student against teacher logits"
            node = declared["node"]
            raise UserError(f"{row.where}.{node}: {problem}; remove {node} or change the method")
        found.append(name)
    return tuple(found)


def _check_trainer(row, values):
    """Raises UserError unless the row has the losses, and the momentum the room, that its trainer needs."""
    defaults = schema.base_keys()
    trainer = values.get("SOLVER.TRAINER", defaults["SOLVER.TRAINER"].default)
    declared = components.trainers()[trainer]
    if declared["two_losses"] and not needs_teacher(row):
        alone = _method(row)
        remedy = f"use {defaults['SOLVER.TRAINER'].default}"
        raise UserError(f"{row.where}: SOLVER.TRAINER {trainer} needs a distillation loss, {alone} has none; {remedy}")
    if declared["margin"]:
        key = f"{declared['node']}.{declared['margin']}"
        momentum = values.get("SOLVER.MOMENTUM", defaults["SOLVER.MOMENTUM"].default)
        margin = values.get(key, declared["keys"][declared["margin"]].default)
        if not (margin <= momentum and momentum + margin < 1):
            limit = f"at most {momentum:g} and below {1 - momentum:g}"
            raise UserError(f"{row.where}: {key} {margin:g} must be {limit}, as SOLVER.MOMENTUM is {momentum:g}")


def _nodes():
    switches = {declared["node"] for declared in components.transforms().values()}  # may be without keys
    return switches | {name[:i] for name in schema.all_keys() for i, letter in enumerate(name) if letter == "."}


def _known_node(name, where):
    if name not in _nodes():
        raise UserError(f"{where}.{name}: {one_of(name, sorted(_nodes()), 'node')}")


def _known_key(name, where):
    keys = schema.all_keys()
    if name in keys:
        return keys[name]
    if name in _nodes():
        raise UserError(f"{where}.{name}: is a node, expected a mapping of its keys, e.g. {name}: {{}}")
    raise UserError(f"{where}.{name}: {one_of(name, list(keys), 'key')}")


def _tree(values):
    """A frozen yacs node of dotted keys."""
    tree = CfgNode()
    for name, value in values.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, CfgNode())
        node[leaf] = value
    tree.freeze()
    return tree

"""From the keys that somebody wrote to the complete, typed configuration of a run."""

from typing import NamedTuple

from yacs.config import CfgNode

from distillbench.config import components, schema
from distillbench.errors import UserError, one_of


class Written(NamedTuple):
    """Keys as they were written in one place: `values` by dotted key, `nodes` that are there (even if empty).

    where: "params/demo.yaml: methods.KD", for messages; elsewhere: {key or node: the same, where that stands in another
    file}, as a suite's row may with `include:`.
    """

    values: dict
    nodes: frozenset
    where: str
    elsewhere: dict = {}

    def at(self, name):
        """The place of a key or node, for messages."""
        return f"{self.elsewhere.get(name, self.where)}.{name}"

    def over(self, below):
        """These keys on top of others, as `like:` means it."""
        return self._replace(values={**below.values, **self.values}, nodes=below.nodes | self.nodes)


class Resolved(NamedTuple):
    """config: frozen yacs node of everything; transforms: names of those that are on; notes: what a dialect changed."""

    config: CfgNode
    transforms: tuple[str, ...]
    notes: tuple[str, ...]


def flatten(mapping, where, elsewhere=None):
    """`Written` of a mapping of nested nodes and dotted keys, each key known and each value of its type."""
    found = Written({}, frozenset(), where, elsewhere or {})
    if not isinstance(mapping, dict):
        raise UserError(f"{where}: expected a mapping of keys to values, found {mapping!r}")
    values, nodes = {}, set()

    def visit(prefix, node):
        for key, value in node.items():
            if not isinstance(key, str):
                raise UserError(f"{where}: the key {key!r} is not text; put it in quotes")
            name = f"{prefix}.{key}" if prefix else key
            if isinstance(value, dict) and (name in _nodes() or name not in schema.all_keys()):
                _known_node(name, found.at(name))
                nodes.add(name)
                visit(name, value)
                continue
            key_schema = _known_key(name, found.at(name))
            if name in values:
                raise UserError(f"{found.at(name)}: stands twice, dotted and nested; remove one")
            values[name] = key_schema.check(value, found.at(name))
            nodes.update(name[:i] for i, letter in enumerate(name) if letter == ".")

    visit("", mapping)
    return found._replace(values=values, nodes=frozenset(nodes))


def resolve(layers, row):
    """The configuration of a run.

    layers: `Written` of lower rank, first the lowest (base, pair): their values count where the row reads
    them; row: `Written` of the run's own keys: each must be read.
    Raises UserError naming the place of a key that is unknown, unread or in conflict.
    """
    method, keys, merged = _method(row), read_keys(row, layers), _merged(row, layers)
    for name in row.values:
        if name not in keys:
            raise UserError(f"{row.at(name)}: not read by a row of {_reader(name, method, merged)}; remove it")
    _check_trainer(row, merged)
    _check_solver(row, merged)
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
    if values["SOLVER.TYPE"] != "SGD" and "SOLVER.LR" not in merged:
        notes.append(f"SOLVER.LR is the default of SGD, {values['SOLVER.LR']:g}; write one for {values['SOLVER.TYPE']}")
    return Resolved(_tree(values), transforms_of(row), tuple(notes))


def read_keys(row, layers=()):
    """{dotted key: Key} that a row reads, given what lower layers say of its trainer, optimizer and schedule."""
    merged = _merged(row, layers)
    trainer, *solver = (_value(merged, f"SOLVER.{name}") for name in ("TRAINER", "TYPE", "SCHEDULE"))
    keys = {**schema.base_keys(), **schema.method_keys(_method(row)), **schema.trainer_keys(trainer)}
    keys |= schema.solver_keys(*solver)
    for transform in transforms_of(row):
        keys |= schema.transform_keys(transform)
    return keys


def _merged(row, layers):
    """{dotted key: value} of what is written, that of the highest layer."""
    return {name: value for written in (*layers, row) for name, value in written.values.items()}


def _value(merged, name):
    """What is written for a key that has the same default in both dialects, or this default."""
    return merged.get(name, schema.all_keys()[name].default)


def _reader(name, method, merged):
    """What decides that a row does not read a key."""
    for decides in ("SOLVER.TYPE", "SOLVER.SCHEDULE"):
        if any(name in keys for keys in schema.choices_of(decides).values()):
            return f"{decides} {_value(merged, decides)}"
    return f"type {method}"


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
            raise UserError(f"{row.at(node)}: {problem}; remove {node} or change the method")
        found.append(name)
    return tuple(found)


def _check_trainer(row, values):
    """Raises UserError unless the row has the losses, and the momentum the room, that its trainer needs."""
    trainer = _value(values, "SOLVER.TRAINER")
    declared, remedy = components.trainers()[trainer], f"use {schema.all_keys()['SOLVER.TRAINER'].default}"
    if declared["two_losses"] and not needs_teacher(row):
        alone = _method(row)
        raise UserError(f"{row.where}: SOLVER.TRAINER {trainer} needs a distillation loss, {alone} has none; {remedy}")
    for key, only in schema.below("SOLVER", declared["solver"]).items():
        if (value := _value(values, key)) != only:
            problem = f"is defined for {key} {_spelt(only)}, not {_spelt(value)}"
            raise UserError(f"{row.where}: SOLVER.TRAINER {trainer} {problem}; write that, or {remedy}")
    if declared["margin"]:
        key = f"{declared['node']}.{declared['margin']}"
        momentum, margin = _value(values, "SOLVER.MOMENTUM"), _value(values, key)
        if not (margin <= momentum and momentum + margin < 1):
            limit = f"at most {momentum:g} and below {1 - momentum:g}"
            raise UserError(f"{row.where}: {key} {margin:g} must be {limit}, as SOLVER.MOMENTUM is {momentum:g}")


def _spelt(value):
    """As YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_solver(row, values):
    """Raises UserError where values of SOLVER contradict each other."""
    names = ("TYPE", "SCHEDULE", "EPOCHS", "WARMUP_EPOCHS", "LR", "MIN_LR", "MOMENTUM", "NESTEROV")
    names += ("BATCH_SIZE", "BATCH_STATISTICS")
    solver = {name: _value(values, f"SOLVER.{name}") for name in names}
    if solver["BATCH_STATISTICS"] != "global" and solver["BATCH_STATISTICS"] > solver["BATCH_SIZE"]:
        least = f"SOLVER.BATCH_STATISTICS {solver['BATCH_STATISTICS']}"
        raise UserError(f"{row.where}: {least} must be at most SOLVER.BATCH_SIZE, {solver['BATCH_SIZE']}, or global")
    if solver["WARMUP_EPOCHS"] >= solver["EPOCHS"]:
        warmup = f"SOLVER.WARMUP_EPOCHS {solver['WARMUP_EPOCHS']}"
        raise UserError(f"{row.where}: {warmup} must be below SOLVER.EPOCHS, {solver['EPOCHS']}")
    if solver["SCHEDULE"] == "cosine" and solver["MIN_LR"] > solver["LR"]:
        least = f"SOLVER.MIN_LR {solver['MIN_LR']:g}"
        raise UserError(f"{row.where}: {least} must be at most SOLVER.LR, {solver['LR']:g}")
    if solver["TYPE"] == "SGD" and solver["NESTEROV"] and not solver["MOMENTUM"]:
        raise UserError(f"{row.where}: SOLVER.NESTEROV true needs a momentum; SOLVER.MOMENTUM must be above 0")


def _nodes():
    switches = {declared["node"] for declared in components.transforms().values()}  # may be without keys
    return switches | {name[:i] for name in schema.all_keys() for i, letter in enumerate(name) if letter == "."}


def _known_node(name, place):
    if name not in _nodes():
        raise UserError(f"{place}: {one_of(name, sorted(_nodes()), 'node')}")


def _known_key(name, place):
    keys = schema.all_keys()
    if name in keys:
        return keys[name]
    if name in _nodes():
        raise UserError(f"{place}: is a node, expected a mapping of its keys, e.g. {name}: {{}}")
    raise UserError(f"{place}: {one_of(name, list(keys), 'key')}")


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

"""From the keys that somebody wrote to the complete, typed configuration of a run."""

from typing import NamedTuple

from yacs.config import CfgNode

from distillbench.config import components, schema
from distillbench.errors import UserError, one_of

SWITCH = "GKD"  # the node whose presence switches the gradient scaling on


class Written(NamedTuple):
    """Keys as they were written in one place: `values` by dotted key, `nodes` that are there (even if empty)."""

    values: dict
    nodes: frozenset
    where: str  # "params/demo.yaml: methods.KD", for messages

    def over(self, below):
        """These keys on top of others, as `like:` means it."""
        return Written({**below.values, **self.values}, below.nodes | self.nodes, self.where)


class Resolved(NamedTuple):
    """config: frozen yacs node of everything; scaled: whether GKD is on; notes: what a dialect changed."""

    config: CfgNode
    scaled: bool
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


def parse_overrides(words):
    """`Written` of command-line words KEY VALUE KEY VALUE ..., read as YAML scalars, as yacs users write them."""
    import yaml

    if len(words) % 2:
        raise UserError(f"command line: {words[-1]!r} has no value; overrides are KEY VALUE pairs")
    pairs = zip(words[::2], words[1::2], strict=True)
    return flatten({key: yaml.safe_load(value) for key, value in pairs}, "command line")


def resolve(layers, row):
    """The configuration of a run.

    layers: `Written` of lower rank, first the lowest (base, pair): their values count where the row reads
    them; row: `Written` of the run's own keys: each must be read.
    Raises UserError naming the place of a key that is unknown, unread or in conflict.
    """
    row, alias_notes = _without_alias(row)
    method = row.values.get("DISTILLER.TYPE")
    if method is None:
        raise UserError(f"{row.where}: DISTILLER.TYPE is missing; write e.g. DISTILLER.TYPE: KD")
    if method not in components.methods():
        raise UserError(
            f"{row.where}.DISTILLER.TYPE: {one_of(method, [*components.methods(), 'GradientKD'], 'method')}"
        )
    scaled = SWITCH in row.nodes
    if scaled and not components.methods()[method]["temperature"]:
        raise UserError(
            f"{row.where}.GKD: {method} has no loss on student against teacher logits; remove GKD or change the method"
        )
    merged = {}
    for layer in (*layers, row):
        merged |= layer.values
    trainer = merged.get("SOLVER.TRAINER", schema.base_keys()["SOLVER.TRAINER"].default)
    if trainer not in components.trainers():
        raise UserError(f"{row.where}.SOLVER.TRAINER: {one_of(trainer, components.trainers(), 'trainer')}")
    keys = {**schema.base_keys(), **schema.method_keys(method), **schema.trainer_keys(trainer)}
    keys |= schema.scaling_keys() if scaled else {}
    for name in row.values:
        if name not in keys:
            raise UserError(
                f"{row.where}.{name}: not read by a row of type {_description(method, scaled, trainer)}; remove it"
            )
    dialect = merged.get("DEFAULTS", "mdistiller")
    values, notes = {}, list(alias_notes)
    for name, key in keys.items():
        values[name] = merged.get(name, key.default_in(dialect))
        if dialect == "gkd" and key.ignored_by_gkd and values[name] != key.gkd:
            notes.append(f"{name} {values[name]:g} has no effect in the GKD repository; {key.gkd:g} is used")
            values[name] = key.gkd
    return Resolved(_tree(values), scaled, tuple(notes))


def read_keys(row):
    """The dotted keys that a row reads beyond the common ones (for sweeps); the row must be resolvable."""
    resolved = resolve((), row)
    method = resolved.config.DISTILLER.TYPE
    keys = {
        **schema.base_keys(),
        **schema.method_keys(method),
        **schema.trainer_keys(resolved.config.SOLVER.TRAINER),
    }
    return set(keys) | (set(schema.scaling_keys()) if resolved.scaled else set())


def _description(method, scaled, trainer):
    return method + (" with GKD" if scaled else "") + (f" trained by {trainer}" if trainer != "base" else "")


def _without_alias(row):
    """`DISTILLER.TYPE: GradientKD` and its node, read as KD with GKD. The node has defaults of its own."""
    if row.values.get("DISTILLER.TYPE") != "GradientKD":
        return row, ()
    notes, values = (
        [],
        {name: value for name, value in row.values.items() if not name.startswith("GradientKD.")},
    )
    for name, key in schema.alias_keys().items():
        value = row.values.get(name, key.default)
        if key.ignored_by_gkd and value != key.gkd:
            notes.append(f"{name} {value:g} has no effect in the GKD repository; {key.gkd:g} is used")
            value = key.gkd
        values.setdefault(name.replace("GradientKD", "KD", 1), value)
    values["DISTILLER.TYPE"] = "KD"
    nodes = (row.nodes - {"GradientKD", "GradientKD.LOSS"}) | {"KD", "KD.LOSS", SWITCH}
    return Written(values, frozenset(nodes), row.where), tuple(notes)


def _nodes():
    return {name[:i] for name in schema.all_keys() for i, letter in enumerate(name) if letter == "."}


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

"""Configurations: what the repositories read a published file as, all their defaults filled in."""

from distillbench.checks.parity.cases import Mismatch, NotCovered
from distillbench.config.published import TRAINERS
from distillbench.config.resolve import flatten, read_keys, resolve
from distillbench.config.schema import all_keys, without_alias
from distillbench.config.specification import flat
from distillbench.errors import UserError

DEFAULTS = "_defaults.json"  # of a repository: what it has without a file
DIALECTS = {"mdistiller": "mdistiller", "GKD": "gkd"}  # repository: its `DEFAULTS`


def check_configuration(description, repository, name):
    """Compare the values that decide numbers, of keys that the repository uses; returns how many these are."""
    if repository not in DIALECTS:
        raise NotCovered(f"configurations of {repository}")
    theirs, dialect = flat(description["resolved"]), DIALECTS[repository]
    theirs["SOLVER.TRAINER"] = TRAINERS.get(theirs["SOLVER.TRAINER"], theirs["SOLVER.TRAINER"])
    for key in theirs:
        if key not in all_keys():
            raise NotCovered(f"key {key}")
    defaults = {key: all_keys()[key].default_in(dialect) for key in theirs}
    ours = defaults if name == DEFAULTS else _resolved(theirs, defaults, dialect)
    compared = 0
    for key, value in ours.items():
        declared = all_keys()[key]
        if key in theirs and declared.identity and not (dialect == "gkd" and declared.ignored_by_gkd):
            compared += 1
            if value != theirs[key]:
                raise Mismatch(f"{key}: {value!r}, reference {theirs[key]!r}")
    return compared


def _resolved(theirs, defaults, dialect):
    """{key that a run reads: its value} where only what is no default is written."""
    written = {key: value for key, value in theirs.items() if value != defaults[key]}
    method = {"DISTILLER.TYPE": theirs["DISTILLER.TYPE"], "DEFAULTS": dialect}
    try:
        row, layers = flatten(method, "setting"), (flatten(written, "setting"),)
        values = flat(resolve(layers, row).config)
    except UserError as error:
        raise NotCovered(str(error)) from None
    return {key: values[without_alias(key)] for key in read_keys(row, layers) if key != "DISTILLER.TYPE"}

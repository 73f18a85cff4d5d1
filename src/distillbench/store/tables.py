"""Logit tables on disk: of a teacher's weights, its logits for all views of all training images.

A table is a header of `HEADER_BYTES`, JSON and spaces, and then [N, V, C] numbers of `DTYPE`. The header says what the
table was made from, and the SHA-256 of the numbers; while the table is being made it lies aside, and its header says
how many of the N * V rows are done.
"""

import json
import math
from typing import NamedTuple

from distillbench.command_lines import command
from distillbench.config import components
from distillbench.config.specification import PUBLISHED
from distillbench.config.views import view_count, view_order

HEADER_BYTES = 4096
DTYPE, ITEM_BYTES = "<f4", 4
ABSENT = "is not there"  # of `problem_of`


class Key(NamedTuple):
    """The teacher of a table: id of its run, and which of its weights."""

    run: str
    checkpoint: str


def key_of(specification):
    """The `Key` of a run's teacher, which is a run."""
    return Key(specification.teacher_id, specification["teacher"]["checkpoint"])


def table_path(results, key):
    return results / "tables" / key.run / f"{key.checkpoint}.logits"


def making(key):
    """The command line that makes a table."""
    return command("table", key.run, options=["--checkpoint", key.checkpoint])


def aside(path):
    """Where a table lies while it is being made."""
    return path.with_name(f".{path.name}.part")


def replaces_teacher(specification):
    """Whether a table could give what a run needs of its teacher: logits of finitely many views, not in fp64."""
    method = components.methods().get(specification["method"]["name"], {})
    logits_alone = bool(specification.teacher_id) and method.get("teacher") == "logits"
    finite = has_views(specification) and not specification.mixup
    return logits_alone and specification["precision"] != "fp64" and finite


def has_views(specification):
    """Whether all views of all training images of a run's dataset can be counted."""
    declared = components.datasets()[specification["dataset"]["name"]]
    return bool(declared["num_train"] and view_count(specification["views"]["augmentation"]))


def shape_of(specification):
    """(N, V, C) of the table of a teacher on a run's dataset, which `has_views`."""
    declared = components.datasets()[specification["dataset"]["name"]]
    return declared["num_train"], view_count(specification["views"]["augmentation"]), declared["num_classes"]


def size_of(shape):
    """Bytes of a table's file."""
    return HEADER_BYTES + ITEM_BYTES * math.prod(shape)


def header_of(specification, key, weights):
    """The header of a table as it has to be, without the digest of its numbers.

    specification: of the teacher's run or of one that it teaches; weights: digest of the teacher's weights.
    """
    return {
        "teacher": {**key._asdict(), "weights": weights},
        "dataset": {**specification["dataset"], "protocol": PUBLISHED},  # of all training images, whatever is held out
        "views": view_order(specification["views"]["augmentation"]),
        "shape": list(shape_of(specification)),
        "dtype": DTYPE,
    }


def as_bytes(header):
    """The first bytes of a table's file."""
    return json.dumps(header, sort_keys=True).encode().ljust(HEADER_BYTES - 1) + b"\n"


def read_header(path):
    """The header of a table or of one that is being made; {} where there is none, or none that can be read."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
    except (OSError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}


def problem_of(path, header):
    """Why a table's file, by its header and size, is not the one that is meant, in a few words; "" if it is.

    header: as of `header_of`.
    """
    if not path.exists():
        return ABSENT
    found = read_header(path)
    if not found:
        return "is not a logit table"
    if "content" not in found or path.stat().st_size != size_of(header["shape"]):
        return "is not whole"
    differing = sorted(name for name in header if found.get(name) != header[name])
    return f"was made with another {' and '.join(differing)}" if differing else ""


def rows_done(path, header):
    """How many rows of a table that is being made are there: 0 if it is being made from something else."""
    part = aside(path)
    found = read_header(part)
    rows, row_bytes = found.get("rows", 0), ITEM_BYTES * header["shape"][-1]
    same = all(found.get(name) == value for name, value in header.items())
    return rows if same and part.stat().st_size >= HEADER_BYTES + rows * row_bytes else 0

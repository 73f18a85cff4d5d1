"""Where a run has its teacher's logits from: a table, or the network itself, asked in every step."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from distillbench.engine.table import read_table
from distillbench.errors import UserError
from distillbench.store.tables import header_of, key_of, making, problem_of, replaces_teacher, size_of, table_path


class Source(NamedTuple):
    """kind: "table", "live", or None without a teacher; why: why it is live where a table could have been used."""

    kind: str | None
    why: str = ""
    table: Tensor | None = None  # [N, V, C] on the run's device


def teacher_source(specification, weights, results, device, begun=None, wanted="auto", report=print):
    """The `Source` of a run's teacher.

    weights: digest of the teacher's; results: the folder that the tables lie in; begun: kind of an earlier attempt
    that is gone on with, which stays; wanted: "auto", or "never" for live whatever is there.
    Raises UserError if a run that was begun with a table has none now.
    """
    if not specification["teacher"]:
        return Source(None)
    if begun == "live" or not replaces_teacher(specification):
        return Source("live")
    if not begun and wanted == "never":
        return Source("live", "--table never")
    key = key_of(specification)
    path, header = table_path(Path(results), key), header_of(specification, key, weights)
    problem = problem_of(path, header)
    remedy = f"make it with `{making(key)}`" if problem else "take a device with more room"
    problem = problem or _no_room(header, device, begun)
    if not problem:
        return Source("table", table=read_table(path, header).to(device))
    if begun:
        what = f"{specification.id}: was begun with the table {path}, which {problem}"
        raise UserError(f"{what}; {remedy}, or remove the run's work directory")
    if path.exists():
        report(f"{path}: {problem}; the teacher is asked live")
    return Source("live", f"{path} {problem}")


def _no_room(header, device, begun):
    """Why a table does not go to a device, or "": a run that was not begun with it keeps half of what is free."""
    size, free = size_of(header["shape"]), torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    if free is None or size <= (free if begun else free / 2):
        return ""
    what = "" if begun else "more than half "
    return f"takes {size / 1e6:.1f} MB, {what}of the {free / 1e6:.1f} MB that are free on {device}"

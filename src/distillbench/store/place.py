"""A run's place: whose files are there, and how a finished run's files are brought to it."""

import shutil
from pathlib import Path

from distillbench.config.specification import read_specification
from distillbench.errors import UserError
from distillbench.files import move
from distillbench.store.layout import FAILURE, FINISHED, LOCK, PROGRESS, RUN_FILES, STATE
from distillbench.store.record import read_record


def require_own(directory, specification, work):
    """Raises UserError if a directory has files that the run would overwrite and that are not this run's.

    work: the run's work directory; while an earlier call's files are half brought from there, they are.
    """
    record = arriving(work)
    if record and record["run"] == specification.id:
        return
    path = Path(directory) / "spec.json"
    taken = [name for name in RUN_FILES if (Path(directory) / name).exists()]
    if taken and not (path.exists() and read_specification(path).id == specification.id):
        raise UserError(f"{directory}/{taken[0]}: not of run {specification.id}; choose another --out")


def require_work(work):
    """Raises UserError if a work directory holds files that no training left there: its own are removed at the end."""
    known = {FAILURE, FINISHED, f".{FINISHED}", LOCK, PROGRESS, STATE}
    for path in Path(work).glob("*"):
        if path.name not in known and path.suffix != ".tmp":  # aside: of a write that was killed
            raise UserError(f"{path}: not of a run in flight; choose another --work")


def arriving(work):
    """The record of a finished run whose files are on their way from a work directory to their place, or None."""
    path = Path(work) / FINISHED / "record.json"
    return read_record(path) if path.exists() else None


def bring(work, out):
    """Move the files of a finished run from its work directory to its place, the record last; whether there were any.

    What else is in flight of the run goes. Killed in between, the run is of two realisations until the next call.
    """
    complete = Path(work) / FINISHED
    if not complete.exists():
        return False
    for name in sorted(RUN_FILES, key=lambda name: name == "record.json"):
        if (complete / name).exists():
            move(complete / name, Path(out) / name)
    discard(work)
    return True


def discard(work):
    """Remove what a run in flight left in its work directory, and nothing else."""
    work = Path(work)
    for name in (STATE, PROGRESS, FAILURE):
        for path in (work / name, *work.glob(f".{name}.*.tmp")):  # aside: of a write that was killed
            path.unlink(missing_ok=True)
    for name in (FINISHED, f".{FINISHED}"):
        shutil.rmtree(work / name, ignore_errors=True)

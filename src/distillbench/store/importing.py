"""Placing the runs of an archive in a store: what is missing comes, nothing that is here changes."""

import errno
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from distillbench.config.specification import read_specification
from distillbench.errors import UserError
from distillbench.files import move, sha256_of
from distillbench.store.archive import unpack
from distillbench.store.claim import claim
from distillbench.store.layout import CHECKPOINTS, parts
from distillbench.store.metrics import read_metrics
from distillbench.store.place import bring
from distillbench.store.record import read_record


class Outcome(NamedTuple):
    """What an import did with a run: "imported", "completed", "already here" or "refused" (detail says why)."""

    run: str
    state: str
    detail: str = ""


def import_archive(path, store):
    """Put the runs of an archive into the store; returns (manifest, [`Outcome`]).

    Everything in the archive is verified before anything is placed. No file that is here is changed.
    Raises UserError, and places nothing, if the archive or a local run is not what it says.
    """
    beside = store.runs.resolve().parent
    beside.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".import.", dir=beside))
    try:
        manifest = unpack(path, stage)
        outcomes = [_compare(stage / "runs" / run, run, store) for run in manifest["runs"]]
        return manifest, [_settle(outcome, stage / "runs" / outcome.run, store) for outcome in outcomes]
    finally:
        shutil.rmtree(stage)


def teacher_warnings(runs, store):
    """Lines on those of some runs, and of the students here of these, whose teacher holds other weights than it did."""
    warnings = []
    for run in store.ids():
        if all((store.run(run) / name).exists() for name in ("spec.json", "record.json")):
            try:
                if run in runs or store.specification(run).teacher_id in runs:
                    warnings.append(store.other_realisation(run))
            except UserError as error:
                warnings.append(str(error))
    return list(filter(None, warnings))


def _settle(outcome, there, store):
    """Place what is missing here of an unpacked run, if it is still missing once nobody else works on the run."""
    run = outcome.run
    if outcome.state not in ("imported", "completed"):
        return outcome
    try:
        with claim(store.work(run), wait=False):
            bring(store.work(run), store.run(run))  # what a killed training left on its way
            outcome = _compare(there, run, store)
            if outcome.state in ("imported", "completed"):
                _place(there, store.run(run))
    except UserError as error:
        if not store.running(run):
            return Outcome(run, "refused", str(error))
        return Outcome(run, "refused", "is being worked on here; import it when that has ended")
    return outcome


def _compare(there, run, store):
    """The `Outcome` that an unpacked run will have, from what is here of it."""
    here = store.run(run)
    if not here.exists():
        return Outcome(run, "imported")
    if (here / "spec.json").exists():
        store.specification(run)  # raises if it was edited
    if difference := _difference(here, there):
        return Outcome(run, "refused", f"same id, different realisation: {difference}")
    complete = all((here / path.relative_to(there)).exists() for path in _files(there))
    return Outcome(run, "already here" if complete else "completed")


def _difference(here, there):
    """What distinguishes two realisations of a run, with both digests, or None.

    Weights are those that the records name. A run without a record is compared file by file.
    """
    record, made = here / "record.json", parts(read_specification(there / "spec.json"))
    if record.exists():
        ours, theirs = (read_record(path)["weights"] for path in (record, there / "record.json"))
        for checkpoint in CHECKPOINTS:
            if ours[checkpoint] != theirs[checkpoint]:
                return _digests(f"{checkpoint} weights", ours[checkpoint], theirs[checkpoint])
    for path in _files(there):
        name = path.relative_to(there).as_posix()
        if not (here / name).exists() or name == "spec.json":
            continue
        if name in made.metrics.files:
            ours, theirs = _values(here / name), _values(path)
            same = all(math.isclose(ours[key], theirs[key], rel_tol=1e-9) for key in ours.keys() & theirs.keys())
        else:
            judged = not record.exists() or name in made.predictions.files
            same = not judged or sha256_of(here / name) == sha256_of(path)
        if not same:
            return _digests(name, sha256_of(here / name), sha256_of(path))
    return None


def _digests(what, ours, theirs):
    return f"{what} {ours[:12]} here, {theirs[:12]} in the archive"


def _values(path):
    """{(split, checkpoint, metric): value}; a newer side may have more metrics."""
    return {(e["split"], e["checkpoint"], e["metric"]): e["value"] for e in read_metrics(path)["metrics"]}


def _files(directory):
    """What is derived comes after what it is derived from, the record last: it means that the run is finished."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return sorted(paths, key=lambda path: {"metrics.json": 1, "record.json": 2}.get(path.name, 0))


def _place(there, here):
    """Move an unpacked run to its place: whole, or only the files that are missing there."""
    if not here.exists():
        here.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.rename(there, here)
        except OSError as error:
            if error.errno != errno.EXDEV:  # a part of the store lies on another disk
                raise
    for path in _files(there):
        target = here / path.relative_to(there)
        if not target.exists():
            move(path, target)

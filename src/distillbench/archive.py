"""Runs in one file: `export` packs a suite's finished runs, `import` puts them into another store.

The archive holds manifest.json first, then params/SUITE.yaml (as information) and runs/ID/...; its bytes depend on
its content alone. Weights are compared by digests, never unpickled.
"""

import errno
import gzip
import hashlib
import io
import json
import math
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from distillbench import __version__
from distillbench.command_lines import command
from distillbench.config.specification import RUN_ID, read_specification
from distillbench.errors import UserError
from distillbench.files import move, read_json, sha256_of, to_json
from distillbench.store.claim import claim
from distillbench.store.layout import CHECKPOINTS, METRICS, PARTS, PREDICTIONS, weights_file
from distillbench.store.place import bring
from distillbench.store.record import read_record

SCHEMA = 1
MANIFEST, MAX_MANIFEST = "manifest.json", 2**26
ENDINGS = (".tar", ".tar.gz", ".tgz")
WEIGHTS = tuple(map(weights_file, CHECKPOINTS))
NEEDED = tuple(name for part in PARTS for name in part.files if name not in WEIGHTS)


class Outcome(NamedTuple):
    """What an import did with a run: "imported", "completed", "already here" or "refused" (detail says why)."""

    run: str
    state: str
    detail: str = ""


# Export


def export_suite(suite, store, out, weights=True, root="."):
    """Write the finished runs of a suite to an archive; returns ([runs], [lines on what is left out]).

    suite: `Suite`; out: FILE.tar, FILE.tar.gz or FILE.tgz; weights: False leaves model.*.pt out.
    A run of which a file is damaged is left out. Raises UserError if no run is left, or something else than an archive
    of this suite has the name `out`.
    """
    if not str(out).endswith(ENDINGS):
        raise UserError(f"--out {out}: an archive's name ends with {', '.join(ENDINGS)}")
    if os.path.lexists(out) and _exported_suite(out) != suite.name:
        raise UserError(f"--out {out}: is no archive of suite {suite.name}; move it away or choose another name")
    params = Path(root) / suite.source
    files, runs, notes = {f"params/{params.name}": params}, {}, []
    for run in suite.runs:
        directory = store.run(run)
        missing = [name for name in NEEDED if not (directory / name).exists()]
        if missing:
            notes.append(f"{run}: left out, {'not there' if len(missing) == len(NEEDED) else f'has no {missing[0]}'}")
            continue
        try:
            state, detail = store.state(run)
            if state != "done":
                raise UserError(f"{state}: {detail}")
            record, specification = read_record(directory / "record.json"), store.specification(run)
            for checkpoint in CHECKPOINTS:
                store.metrics(run, checkpoint)
                store.predicted(run, checkpoint)
        except UserError as error:
            notes.append(f"{run}: left out, {error}")
            continue
        names = NEEDED
        if weights and all((directory / name).exists() for name in WEIGHTS):
            names += WEIGHTS
        elif weights:
            notes.append(f"{run}: without weights, they are not here")
        files |= {f"runs/{run}/{name}": directory / name for name in names}
        runs[run] = {"specification": specification.digest, "weights": record["weights"]}
    if not runs:
        more = f"`{command('status', suite.name)}` says more"
        raise UserError(f"suite {suite.name}: no finished run here, nothing to export; {more}")
    manifest = {"schema": SCHEMA, "suite": suite.name, "distillbench": __version__, "runs": runs}
    manifest["files"] = {name: {"sha256": sha256_of(p), "size": p.stat().st_size} for name, p in files.items()}
    _write_archive(Path(out), to_json(manifest).encode(), files)
    return list(runs), notes


def _exported_suite(path):
    """The suite that a file is an archive of, or None."""
    try:
        with tarfile.open(path) as archive:
            first = archive.next()
            mine = first.name == MANIFEST and first.size <= MAX_MANIFEST
            return json.loads(archive.extractfile(first).read())["suite"] if mine else None
    except Exception:  # it may be anything
        return None


def _write_archive(out, manifest, files):
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as raw:
            zipped = (
                gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if not out.name.endswith(".tar") else nullcontext(raw)
            )
            with zipped as stream, tarfile.open(fileobj=stream, mode="w") as archive:
                _add(archive, MANIFEST, io.BytesIO(manifest), len(manifest))
                for name in sorted(files):
                    with open(files[name], "rb") as file:
                        _add(archive, name, file, files[name].stat().st_size)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(aside, out)
    finally:
        aside.unlink(missing_ok=True)


def _add(archive, name, file, size):
    member = tarfile.TarInfo(name)  # its owner, mode and time are constants
    member.size = size
    archive.addfile(member, file)


# Import


def import_archive(path, store):
    """Put the runs of an archive into the store; returns (manifest, [`Outcome`]).

    Everything in the archive is verified before anything is placed: names, kinds, sizes and digests of all files,
    specifications against ids, records against the manifest. No file that is here is changed.
    Raises UserError, and places nothing, if the archive or a local run is not what it says.
    """
    beside = store.runs.resolve().parent
    beside.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".import.", dir=beside))
    try:
        try:
            manifest = _unpack(path, stage)
            for run, entry in manifest["runs"].items():
                _check_run(stage / "runs" / run, run, entry)
        except UserError as error:
            raise UserError(str(error).replace(f"{stage}/", f"{path}: ")) from None
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path}: cannot be read as an archive ({error or 'it ends early'})") from None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}: damaged or not made by `distillbench export` ({error!r:.80})") from None
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


def _unpack(path, stage):
    """Write the files of an archive, each checked, below `stage`; returns the manifest."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with tarfile.open(path, "r:gz" if zipped else "r:") as archive:
        first = archive.next()
        if first is None or first.name != MANIFEST or first.type != tarfile.REGTYPE or first.size > MAX_MANIFEST:
            raise UserError(f"{path}: does not begin with {MANIFEST}; not made by `distillbench export`")
        manifest = json.loads(archive.extractfile(first).read())
        expected = _expected_files(path, manifest)
        for member in archive:
            if member.name == MANIFEST and member is first:
                continue
            entry = expected.pop(member.name, None)
            if entry is None:
                raise UserError(f"{path}: {member.name!r} is not in its manifest or stands twice")
            if member.type != tarfile.REGTYPE or member.issparse():
                raise UserError(f"{path}: {member.name} is not a plain file")
            if (
                member.size != entry["size"]
                or _copy(archive.extractfile(member), stage / member.name) != entry["sha256"]
            ):
                raise UserError(f"{path}: {member.name} is damaged, it is not the file that the manifest names")
    if expected:
        raise UserError(f"{path}: truncated, {len(expected)} files are missing, e.g. {min(expected)}")
    return manifest


def _expected_files(path, manifest):
    """{name: {sha256, size}} of a manifest whose names are exactly those of whole runs and one params file."""
    if manifest["schema"] != SCHEMA:
        raise UserError(f"{path}: schema {manifest['schema']!r}, this version reads {SCHEMA}; update distillbench")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", manifest["suite"]):
        raise UserError(f"{path}: {manifest['suite']!r} is not a suite's name")
    needed, allowed = {f"params/{manifest['suite']}.yaml"}, set()
    for run in manifest["runs"]:
        if not re.fullmatch(RUN_ID, run):
            raise UserError(f"{path}: {run!r} is not a run id")
        needed |= {f"runs/{run}/{name}" for name in NEEDED}
        allowed |= {f"runs/{run}/{name}" for name in WEIGHTS}
    files = dict(manifest["files"])
    for name in sorted(needed.symmetric_difference(files) - allowed):
        raise UserError(f"{path}: {name!r} is {'missing in' if name in needed else 'not a run file of'} its manifest")
    return files


def _copy(source, target):
    """Copy a stream to a new file; returns its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with open(target, "xb") as file:
        while chunk := source.read(2**20):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _check_run(directory, run, entry):
    """Raise UserError unless an unpacked run is the one that the manifest names."""
    specification = read_specification(directory / "spec.json")
    if (specification.id, specification.digest) != (run, entry["specification"]):
        raise UserError(f"{directory}/spec.json: is the specification of {specification.id}")
    record = read_record(directory / "record.json")
    weights = record["weights"]
    digests = set(weights) == set(CHECKPOINTS) and all(re.fullmatch("[0-9a-f]{64}", w) for w in weights.values())
    if record["run"] != run or weights != entry["weights"] or not digests:
        raise UserError(f"{directory}/record.json: names other weights or another run than the manifest")
    for name in METRICS.files:
        if read_json(directory / name)["run_sha256"] != specification.digest:
            raise UserError(f"{directory}/{name}: metrics of another run")
        _metrics(directory / name)


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
    record = here / "record.json"
    if record.exists():
        ours, theirs = (read_record(path)["weights"] for path in (record, there / "record.json"))
        for checkpoint in CHECKPOINTS:
            if ours[checkpoint] != theirs[checkpoint]:
                return _digests(f"{checkpoint} weights", ours[checkpoint], theirs[checkpoint])
    for path in _files(there):
        name = path.relative_to(there).as_posix()
        if not (here / name).exists() or name == "spec.json":
            continue
        if name in METRICS.files:
            ours, theirs = _metrics(here / name), _metrics(path)
            same = all(math.isclose(ours[key], theirs[key], rel_tol=1e-9) for key in ours.keys() & theirs.keys())
        else:
            judged = not record.exists() or name in PREDICTIONS.files
            same = not judged or sha256_of(here / name) == sha256_of(path)
        if not same:
            return _digests(name, sha256_of(here / name), sha256_of(path))
    return None


def _digests(what, ours, theirs):
    return f"{what} {ours[:12]} here, {theirs[:12]} in the archive"


def _metrics(path):
    """{(split, checkpoint, metric): value}; a newer side may have more metrics."""
    try:
        return {(e["split"], e["checkpoint"], e["metric"]): float(e["value"]) for e in read_json(path)["metrics"]}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: not metrics of a run; remove the file and evaluate again") from None


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

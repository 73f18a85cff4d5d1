"""Runs in one file: packing a suite's finished runs, and unpacking them, each checked, into an empty folder.

The archive holds manifest.json first, then params/SUITE.yaml with what it includes (as information) and runs/ID/...;
its bytes depend on its content alone. Weights are compared by digests, never unpickled.
"""

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from contextlib import nullcontext
from pathlib import Path

from distillbench import __version__
from distillbench.command_lines import command
from distillbench.config.specification import RUN_ID, read_specification
from distillbench.config.suite_file import INCLUDED
from distillbench.errors import UserError
from distillbench.files import naming, sha256_of, to_json
from distillbench.store.layout import CHECKPOINTS, RUN_FILES, known_files, parts, weights_file
from distillbench.store.metrics import read_metrics
from distillbench.store.record import read_record

SCHEMA = 1
MANIFEST, MAX_MANIFEST = "manifest.json", 2**26
ENDINGS = (".tar", ".tar.gz", ".tgz")
WEIGHTS = tuple(map(weights_file, CHECKPOINTS))


def needed(specification):
    """The files without which a run is not whole in an archive: all but its weights."""
    return tuple(name for part in parts(specification) for name in part.files if name not in WEIGHTS)


# Packing


def export_suite(suite, store, out, weights=True, root=".", report=print):
    """Write the finished runs of a suite to an archive; returns ([runs], [lines on what is left out]).

    suite: `Suite`; out: FILE.tar, FILE.tar.gz or FILE.tgz; weights: False leaves model.*.pt out; report: called with a
    line on the sizes of what is packed, before the work.
    A run of which a file is damaged is left out. Raises UserError if no run is left, or something else than an archive
    of this suite has the name `out`.
    """
    if not str(out).endswith(ENDINGS):
        raise UserError(f"--out {out}: an archive's name ends with {', '.join(ENDINGS)}")
    if os.path.lexists(out) and _exported_suite(out) != suite.name:
        raise UserError(f"--out {out}: is no archive of suite {suite.name}; move it away or choose another name")
    files, predictions, runs, notes = {name: Path(root) / name for name in suite.files}, set(), {}, []
    for run in suite.runs:
        directory, names = store.run(run), needed(suite.runs[run])
        missing = [name for name in names if not (directory / name).exists()]
        if missing:
            notes.append(f"{run}: left out, {'not there' if len(missing) == len(names) else f'has no {missing[0]}'}")
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
        if weights and all((directory / name).exists() for name in WEIGHTS):
            names += WEIGHTS
        elif weights:
            notes.append(f"{run}: without weights, they are not here")
        files |= {f"runs/{run}/{name}": directory / name for name in names}
        predictions |= {f"runs/{run}/{name}" for name in parts(suite.runs[run]).predictions.files}
        runs[run] = {"specification": specification.digest, "weights": record["weights"]}
    if not runs:
        more = f"`{command('status', suite.name)}` says more"
        raise UserError(f"suite {suite.name}: no finished run here, nothing to export; {more}")
    report(f"packing {len(runs)} runs: {_sizes(files, predictions)}")
    manifest = {"schema": SCHEMA, "suite": suite.name, "distillbench": __version__, "runs": runs}
    manifest["files"] = {name: {"sha256": sha256_of(p), "size": p.stat().st_size} for name, p in files.items()}
    _write_archive(Path(out), to_json(manifest).encode(), files)
    return list(runs), notes


def _sizes(files, predictions):
    """What predictions, weights and everything else take, in words. files: {name in the archive: path}."""
    sizes = {"predictions": 0, "weights": 0, "the rest": 0}
    for name, path in files.items():
        kind = "predictions" if name in predictions else "weights" if path.name in WEIGHTS else "the rest"
        sizes[kind] += path.stat().st_size
    return ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in sizes.items() if size)


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
        with naming(out), open(aside, "wb") as raw:
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


# Unpacking


def unpack(path, stage):
    """Write the files of an archive below the empty folder `stage`; returns the manifest.

    Everything is verified: names, kinds, sizes and digests of all files, specifications against ids, records against
    the manifest. Raises UserError if the archive is not what it says.
    """
    try:
        manifest = _unpack(path, stage)
        for run, entry in manifest["runs"].items():
            _check_run(stage / "runs" / run, run, entry)
        return manifest
    except UserError as error:
        raise UserError(str(error).replace(f"{stage}/", f"{path}: ")) from None
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as an archive ({error or 'it ends early'})") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged or not made by `distillbench export` ({error!r:.80})") from None


def _unpack(path, stage):
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
    """{name: {sha256, size}} of a manifest whose names are those of params files and of files that runs have.

    Which of these a run needs, only its specification says.
    """
    if manifest["schema"] != SCHEMA:
        raise UserError(f"{path}: schema {manifest['schema']!r}, this version reads {SCHEMA}; update distillbench")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", manifest["suite"]):
        raise UserError(f"{path}: {manifest['suite']!r} is not a suite's name")
    required = {f"params/{manifest['suite']}.yaml"}
    allowed = {name for name in manifest["files"] if re.fullmatch(f"params/{INCLUDED}", name)}
    for run in manifest["runs"]:
        if not re.fullmatch(RUN_ID, run):
            raise UserError(f"{path}: {run!r} is not a run id")
        required |= {f"runs/{run}/{name}" for name in RUN_FILES if name not in WEIGHTS}
        allowed |= {f"runs/{run}/{name}" for name in known_files()}
    files = dict(manifest["files"])
    for name in sorted(files.keys() - required - allowed or required - files.keys()):
        raise UserError(f"{path}: {name!r} is {'missing in' if name in required else 'not a run file of'} its manifest")
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
    for name in needed(specification):
        if not (directory / name).exists():
            raise UserError(f"{directory}/{name}: is missing in the manifest")
    for name in parts(specification).metrics.files:
        read_metrics(directory / name, specification.digest)

"""Recording with DVC: results/runs.dvc names the runs ever recorded, here or elsewhere, data/*.dvc archives of data."""

import json
import os
import subprocess
import sys
from pathlib import Path

from distillbench.config.yaml_file import read_yaml
from distillbench.errors import UserError

RUNS, DATA = "results/runs", "data"


def record_runs():
    """Bring the runs that are here into results/runs.dvc; returns a line where its earlier content is given up.

    The file is made with the first of them: an empty record is in no remote, so that a bare `dvc pull` would fail.
    `dvc commit` would take out what lies only in a remote, such as the checkpoints after a partial pull.
    Raises UserError if the earlier content may be in a remote that cannot be read now, or a folder is a link.
    """
    if not Path(RUNS).is_dir():
        return ""
    for link in _links():
        raise UserError(
            f"{link} is a link, and DVC records nothing behind one: make it a folder, and have the files on the other"
            " disk with `dvc config cache.dir /DISK/FOLDER` and `dvc config cache.type symlink`"
        )
    if not Path(f"{RUNS}.dvc").exists():
        if any(path.is_file() for path in Path(RUNS).rglob("*")):
            _dvc("add", RUNS)
        return ""
    status, notice = json.loads(_dvc("data", "status", "--granular", "--json")), ""
    changes = status.get("uncommitted", {})
    if _unreadable(status, changes):
        lost = f"what {RUNS}.dvc names can be read neither here nor in a remote"
        if _dvc("remote", "list").strip():
            raise UserError(f"{lost}; `dvc fetch {RUNS}.dvc`, or `dvc commit -f {RUNS}.dvc` to begin the record anew")
        notice = f"{lost}, none being set: the record begins anew with the runs that are here"
    renamed = changes.get("renamed", ())  # DVC's guess, where a new file has the bytes of one that is not here
    here = [*changes.get("added", ()), *changes.get("modified", ()), *(entry["new"] for entry in renamed)]
    elsewhere = [*changes.get("deleted", ()), *(entry["old"] for entry in renamed)]
    here, elsewhere = (
        [path for path in paths if path.startswith(f"{RUNS}/") and not path.endswith("/")]
        for paths in (here, elsewhere)
    )
    if not elsewhere:
        _dvc("commit", "--force", f"{RUNS}.dvc")
    elif here:
        partial = set(map(_run, elsewhere))
        _dvc("add", *sorted({path if _run(path) in partial else _run(path) for path in here}))
    return notice


def track_archive(path, md5):
    """Have DVC track an archive as data/NAME, where a copy is put if it lies elsewhere; returns the .dvc file.

    md5: the published digest, by which DVC stores it. Raises UserError where that is not the one that DVC found.
    """
    tracked = Path(DATA, Path(path).name)
    Path(DATA).mkdir(exist_ok=True)
    _dvc("add", *([str(tracked)] if tracked.exists() else ["--out", str(tracked), str(path)]))
    file = f"{tracked}.dvc"
    (recorded,) = read_yaml(file)["outs"]
    if recorded["md5"] != md5:
        raise UserError(f"{file}: tracks another file than the published one; `dvc remove {file}` and track again")
    return file


def _links():
    """Folders on the way to the runs, or among them, that are links."""
    yield from (str(path) for path in (Path(RUNS).parent, Path(RUNS)) if path.is_symlink())
    for folder, names, _ in os.walk(RUNS):
        yield from (path for path in (os.path.join(folder, name) for name in sorted(names)) if os.path.islink(path))


def _unreadable(status, changes):
    """Whether DVC does not know which files it has recorded: then it calls the files that are here unknown."""
    (recorded,) = read_yaml(f"{RUNS}.dvc")["outs"]
    if not recorded["nfiles"] or f"{RUNS}/" not in status.get("not_in_cache", ()):
        return False
    nothing_here = not any(path.is_file() for path in Path(RUNS).rglob("*"))
    return bool(changes.get("unknown")) or (nothing_here and not changes.get("deleted"))


def _run(path):
    """The directory of the run that a file belongs to."""
    return "/".join(path.split("/")[:6])


def _dvc(*arguments):
    """What a DVC command prints. Not with --quiet: then a failure has no reason, either."""
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = os.environ | {"PYTHONUTF8": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        message, *_ = (said.partition("ERROR: ")[2] or said.splitlines()[-1]).splitlines()
        raise UserError(f"dvc {arguments[0]}: {message}")
    return done.stdout

"""Recording runs with DVC: results/runs.dvc names what was ever recorded, here or elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

from distillbench.config.yaml_file import read_yaml
from distillbench.errors import UserError

RUNS = "results/runs"


def record_runs():
    """Bring the runs that are here into results/runs.dvc; returns a line where its earlier content is given up.

    `dvc commit` would take out what lies only in a remote, such as the checkpoints after a partial pull.
    Raises UserError if the earlier content may be in a remote that cannot be read now.
    """
    if not Path(RUNS).is_dir():
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
        _dvc("commit", "--quiet", "--force", f"{RUNS}.dvc")
    elif here:
        partial = set(map(_run, elsewhere))
        _dvc("add", "--quiet", *sorted({path if _run(path) in partial else _run(path) for path in here}))
    return notice


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
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True)
    if done.returncode:
        message, *_ = (done.stderr.partition("ERROR: ")[2] or done.stderr).strip().split("\n")
        raise UserError(f"dvc {arguments[0]}: {message}")
    return done.stdout

"""Recording runs with DVC: results/runs.dvc names what was ever recorded, here or elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

from distillbench.errors import UserError

RUNS = "results/runs"


def record_runs():
    """Bring the runs that are here into results/runs.dvc.

    `dvc commit` would take out what lies only in a remote, such as the checkpoints after a partial pull.
    """
    if not Path(RUNS).is_dir():
        return
    changes = json.loads(_dvc("data", "status", "--granular", "--json")).get("uncommitted", {})
    here, elsewhere = (
        [path for kind in kinds for path in changes.get(kind, ()) if path.startswith(RUNS) and not path.endswith("/")]
        for kinds in (("added", "modified"), ("deleted",))
    )
    if not elsewhere:
        _dvc("commit", "--quiet", "--force", f"{RUNS}.dvc")
    elif here:
        partial = set(map(_run, elsewhere))
        _dvc("add", "--quiet", *sorted({path if _run(path) in partial else _run(path) for path in here}))


def _run(path):
    """The directory of the run that a file belongs to."""
    return "/".join(path.split("/")[:6])


def _dvc(*arguments):
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True)
    if done.returncode:
        message, *_ = (done.stderr.partition("ERROR: ")[2] or done.stderr).strip().split("\n")
        raise UserError(f"dvc {arguments[0]}: {message}")
    return done.stdout

"""What attempts at a run left behind: why the last one failed, how far a run in flight is."""

from distillbench.errors import UserError
from distillbench.files import read_json
from distillbench.store.layout import FAILURE, PROGRESS, STATE


def failure(run_id, work, log):
    """Why the last attempt at a run failed, or "". work: its work directory; log: of its job."""
    path = work / FAILURE
    try:
        return str(read_json(path)["reason"])
    except (UserError, KeyError, TypeError):
        return f"{path} is damaged" if path.exists() else _last_words(run_id, log)


def _last_words(run_id, log):
    """The end of the log of a job that died before it began: the first thing that one says is the run's name."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return f"{lines[-1]} (in {log})" if lines and not any(line.startswith(run_id) for line in lines) else ""


def teacher_source(work):
    """Where a run in flight has its teacher's logits from: "table", "live", or None where nothing is gone on with."""
    try:
        return read_json(work / PROGRESS).get("teacher_source", "live") if (work / STATE).exists() else None
    except (UserError, AttributeError):  # damaged: of a version without tables, for all that is known
        return "live"


def progress(work, running):
    """Where a run in flight stands, for people."""
    path = work / PROGRESS
    try:
        stated = read_json(path)
        epoch, reached = stated["epoch"], stated.get("reached")
        where = f"epoch {epoch} of {stated['epochs']}" + (f", {reached}" if reached else "")
        saved = stated.get("saved_epoch", epoch)
    except (UserError, KeyError, TypeError):
        return f"{path} is damaged" if path.exists() else "in the first epoch"
    if not epoch:
        return "in the first epoch"
    return where if running else f"{where}; goes on in epoch {saved + 1}"

"""Runs on disk: where everything of a run lies, how it stands, and how people name it."""

import fcntl
import re
from pathlib import Path

from distillbench.config.specification import RUN_ID, read_specification
from distillbench.errors import UserError
from distillbench.evaluation import CHECKPOINTS, evaluation_directory
from distillbench.files import read_json

RUN_FILES = ("spec.json", "record.json", "history.csv", "model.best.pt", "model.last.pt")

RECORDED = {"run", "weights", "teacher_weights", "seconds", "images_per_second", "finished"}
RECORDED |= {"commit", "modified", "versions", "device", "threads", "platform"}


class Store:
    """The folder `results` of a project. planned: {run id: Specification} that need not lie in results/specs."""

    def __init__(self, root=".", planned=()):
        self.results = Path(root) / "results"
        self.runs = self.results / "runs"
        self.known = dict(planned)

    def run(self, run_id):
        return self.runs / run_id

    def work(self, run_id):
        return self.results / "work" / run_id

    def planned(self, run_id):
        """The frozen specification that planning wrote."""
        return self.results / "specs" / f"{run_id}.json"

    def ids(self):
        """Ids of all runs that are there, finished or partly pulled, sorted."""
        found = {path.parent.relative_to(self.runs).as_posix() for path in self.runs.glob("*/*/*/*/spec.json")}
        found |= {path.parents[2].relative_to(self.runs).as_posix() for path in self.runs.glob("*/*/*/*/eval/*/*")}
        return sorted(run for run in found if re.fullmatch(RUN_ID, run))

    def find(self, name):
        """The id that a directory, an id or any unique prefix of an id or of its hash names."""
        text = str(name).rstrip("/")
        text = text[len(f"{self.runs}/") :] if text.startswith(f"{self.runs}/") else text.removeprefix("results/runs/")
        known = self.ids()
        if text in known:
            return text
        matches = [run for run in known if run.startswith(text) or run.rpartition("-")[2].startswith(text)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UserError(
                f"{name}: {len(matches)} runs begin so, e.g. {matches[0]} and {matches[1]}; give more letters"
            )
        raise UserError(f"{name}: no such run in {self.runs}; `distillbench ls` lists them")

    def specification(self, run_id):
        """Of a run that is there, or planned. The text is checked against the digest in its own name."""
        path = self.run(run_id) / "spec.json"
        if not path.exists():
            path = self.planned(run_id)
            if run_id in self.known:
                return self.known[run_id]
        specification = read_specification(path)
        if specification.id != run_id:
            raise UserError(f"{path}: holds the specification of {specification.id}; restore or remove it")
        return specification

    def record(self, run_id):
        """The record of a run, or None where it is not here."""
        path = self.run(run_id) / "record.json"
        return read_record(path) if path.exists() else None

    def metrics(self, run_id, checkpoint):
        """The entries of a run's metrics.json, or None where it is not evaluated."""
        path = evaluation_directory(self.run(run_id), checkpoint) / "metrics.json"
        if not path.exists():
            return None
        try:
            content = read_json(path)
            mine, entries = content["run_sha256"].startswith(run_id.rpartition("-")[2]), content["metrics"]
            [(entry["split"], entry["metric"], float(entry["value"])) for entry in entries]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{path}: not metrics of a run; remove the file and evaluate again") from None
        if not mine:
            raise UserError(f"{path}: metrics of another run; remove the file and evaluate again")
        return entries

    def state(self, run_id):
        """(state, detail): done, trained, failed, running, stopped or missing."""
        if all((evaluation_directory(self.run(run_id), c) / "metrics.json").exists() for c in CHECKPOINTS):
            return "done", ""
        if (self.run(run_id) / "record.json").exists():
            return "trained", "not evaluated"
        work = self.work(run_id)
        detail = ""
        if (work / "progress.json").exists():
            progress = read_json(work / "progress.json")
            detail = f"epoch {progress['epoch']} of {progress['epochs']}, test {progress['test_top1']:.2f}"
        if self.running(run_id):
            return "running", detail or "in the first epoch"
        if (work / "failure.json").exists():
            return "failed", read_json(work / "failure.json")["reason"]
        if work.exists():
            return "stopped", detail or "in the first epoch"
        before = self.with_other_code(run_id)
        return "missing", f"code changed since {before.rpartition('/')[2]}" if before else ""

    def with_other_code(self, run_id):
        """The id of a run that differs in nothing but versions and sources of its components, or None."""
        mine, folder = self.specification(run_id), self.run(run_id).parent
        for path in sorted(folder.glob(f"s{mine['seed']}-*/spec.json")):
            other = read_specification(path)
            if other.id != run_id and _without_code(other.data) == _without_code(mine.data):
                return other.id
        return None

    def untrained(self, runs):
        """Those of some runs that are not finished."""
        return {run for run in runs if not (self.run(run) / "record.json").exists()}

    def running(self, run_id):
        """Whether a process trains the run now."""
        return _locked(self.work(run_id) / "lock")

    def other_realisation(self, run_id):
        """A line if the run was distilled from other weights than its teacher's run holds now, else None."""
        specification = self.specification(run_id)
        teacher = specification.teacher_id
        record, made_by = self.record(run_id), self.record(teacher) if teacher else None
        if not record or not made_by:
            return None
        used, holds = record["teacher_weights"], made_by["weights"][specification["teacher"]["checkpoint"]]
        if used == holds:
            return None
        weights = f"its teacher had weights {used[:12]}, {teacher} holds {holds[:12]}"
        return f"{run_id}: same id, different realisation: {weights}"


def read_record(path):
    """What record.json of a finished run holds. Raises UserError if it is something else."""
    record = read_json(path)
    if not isinstance(record, dict) or not record.keys() >= RECORDED or not isinstance(record["weights"], dict):
        raise UserError(f"{path}: not a run's record; restore the file or remove the run")
    return record


def _without_code(value):
    if not isinstance(value, dict):
        return value
    return {key: _without_code(entry) for key, entry in value.items() if key not in ("version", "source_sha256")}


def _locked(path):
    """Whether another process holds the lock of a work directory."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False

"""The state of a run in flight: saved by the clock, valid for the inputs it was made with, gone with the run's end."""

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from distillbench.engine.weights import load_tensors, save_tensors
from distillbench.errors import RunFailed, UserError
from distillbench.files import read_json, to_json, write_atomically
from distillbench.store.layout import FINISHED, PROGRESS, STATE
from distillbench.store.place import bring


@dataclass
class Progress:
    """Where a run stands. `position` is the number of images of `epoch` that are done."""

    epoch: int = 1
    position: int = 0
    rows: list = field(default_factory=list)  # of history.csv, one a finished epoch
    reached: str = ""  # the last epoch's headline metric, for people
    best_epoch: int = 0
    best_weights: dict = field(default_factory=dict)
    seconds: float = 0.0  # of all attempts so far
    teacher_source: str | None = None  # see `teacher.Source`
    why_live: str = ""

    def end_epoch(self, row, network, split, headline):
        """Note a finished epoch; the best one is the first with the highest headline metric on the evaluated split."""
        self.rows.append(row)
        selected = f"{split}_{headline}"
        self.reached = f"{split} {row[selected]:.2f}"
        if not self.best_epoch or row[selected] > self.rows[self.best_epoch - 1][selected]:
            self.best_epoch = row["epoch"]
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        self.epoch, self.position = row["epoch"] + 1, 0


class Flight:
    """The files of a run in flight, in its work directory, which the caller has claimed.

    inputs: {name: digest} of what the run is trained from; a state that was made from others is not gone on with;
    writes: whether this process leaves any, of several that train the run.
    """

    def __init__(self, work, specification, inputs, save_seconds, writes=True):
        self.writes = writes
        self.work, self.specification, self.inputs, self.save_seconds = Path(work), specification, inputs, save_seconds
        self.saved, self.saved_epoch, self.attempts = time.monotonic(), 0, 1 + self._earlier_attempts()
        self._earlier = None

    def _earlier_attempts(self):
        """How many processes began this run before, also those that were stopped before they saved anything."""
        path = self.work / PROGRESS
        try:
            return int(read_json(path).get("attempts", 1)) if path.exists() else 0
        except (UserError, TypeError, ValueError, AttributeError):  # damaged; what counts is the state
            return 1

    def earlier(self, report=print):
        """The state of an earlier attempt at the same specification from the same inputs; {} if there is none."""
        if self._earlier is None:
            self._earlier = self._read_state(report)
        return self._earlier

    def teacher_source(self, report=print):
        """Where an earlier attempt had its teacher's logits from; None if none is gone on with."""
        state = self.earlier(report)
        return state["progress"].get("teacher_source", "live") if state else None

    def _read_state(self, report):
        path = self.work / STATE
        if path.exists():
            state = load_tensors(path)
            if not isinstance(state, dict) or not {"sha256", "learner", "progress"} <= state.keys():
                raise UserError(f"{path}: not the state of a run; remove it and training begins anew")
            if state["sha256"] != self.specification.digest:
                raise UserError(f"{path}: the state of another run; remove {self.work}")
            if state.get("inputs", self.inputs) == self.inputs:
                return state
            report(f"{path}: made with another {_differing(state['inputs'], self.inputs)}; training begins anew")
        return {}

    def resume(self, learner, report=print, teacher_source=None, why_live=""):
        """The progress of an earlier attempt, put into the learner; else a fresh one with what else is given."""
        state, self._earlier = self.earlier(report), {}
        progress = Progress(teacher_source=teacher_source, why_live=why_live)
        if state:
            learner.load_state_dict(state["learner"])
            learner.sums.load_state_dict(state["progress"].pop("sums"))
            progress = Progress(**{**state["progress"], "teacher_source": teacher_source})
            self.saved_epoch = len(progress.rows)
        self.report(progress)
        return progress

    def save_sometimes(self, learner, progress, seconds):
        """Save if the last time is `save_seconds` ago. Raises RunFailed as `save` does."""
        if time.monotonic() - self.saved >= self.save_seconds:
            self.save(learner, progress, seconds)

    def save(self, learner, progress, seconds):
        """Save where a run stands between two steps. Raises RunFailed, saving nothing, once a sum is not finite."""
        if not self.writes:
            return
        for name, value in learner.sums.totals().items() if progress.position else ():
            if not value.isfinite().all():
                raise RunFailed(f"{name} is not finite in epoch {progress.epoch}")
        sums = learner.sums.state_dict() if progress.position else []
        content = {"sha256": self.specification.digest, "inputs": self.inputs, "learner": learner.state_dict()}
        save_tensors(self.work / STATE, {**content, "progress": {**vars(progress), "sums": sums, "seconds": seconds}})
        self.saved, self.saved_epoch = time.monotonic(), len(progress.rows)

    def report(self, progress):
        """Leave for `distillbench status` how far the run is, and how far a state of it is saved."""
        if not self.writes:
            return
        content = {"attempts": self.attempts, "epoch": len(progress.rows), "saved_epoch": self.saved_epoch}
        content["epochs"] = self.specification["schedule"]["EPOCHS"]
        content |= {"reached": progress.reached, "teacher_source": progress.teacher_source}
        write_atomically(self.work / PROGRESS, to_json(content))


def finish(work, out, write):
    """Have `write` fill a folder with the files of a finished run, and bring them to their place once it is whole."""
    complete = Path(work) / FINISHED
    aside = complete.with_name(f".{FINISHED}")
    shutil.rmtree(aside, ignore_errors=True)
    write(aside)
    os.rename(aside, complete)
    bring(work, out)


def _differing(stated, here):
    return " and ".join(name for name in here if stated.get(name) != here[name])

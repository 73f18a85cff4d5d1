"""The state of a run in flight: saved by the clock, locked against a second process, gone when the run is done."""

import fcntl
import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from distillbench.engine.weights import load_tensors, save_tensors
from distillbench.errors import RunFailed, UserError
from distillbench.files import to_json, write_atomically


@dataclass
class Progress:
    """Where a run stands. `position` is the number of images of `epoch` that are done, `sums` their metrics."""

    epoch: int = 1
    position: int = 0
    sums: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)  # of history.csv, one a finished epoch
    best_epoch: int = 0
    best_weights: dict = field(default_factory=dict)
    seconds: float = 0.0  # of all attempts so far
    attempts: int = 1

    def end_epoch(self, row, student):
        """Note a finished epoch; the best one is the first with the highest top-1 on the evaluated split."""
        self.rows.append(row)
        if not self.best_epoch or row["test_top1"] > self.rows[self.best_epoch - 1]["test_top1"]:
            self.best_epoch = row["epoch"]
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in student.state_dict().items()}
        self.epoch, self.position, self.sums = row["epoch"] + 1, 0, {}


class Flight(AbstractContextManager):
    """Owner of a run's work directory. One process at a time; a failure leaves its reason in failure.json."""

    def __init__(self, work, specification, save_seconds):
        self.work, self.specification, self.save_seconds = Path(work), specification, save_seconds

    def __enter__(self):
        self.work.mkdir(parents=True, exist_ok=True)
        self.lock = open(self.work / "lock", "w")
        if not self._take_lock():
            self.lock.close()
            raise UserError(f"{self.work}: another process trains this run; wait for it or stop it")
        (self.work / "failure.json").unlink(missing_ok=True)
        self.saved = time.monotonic()
        return self

    def _take_lock(self, patience=2.0):
        """False if another process keeps the lock; a look by `status` holds it for an instant only."""
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)

    def __exit__(self, kind, error, traceback):
        if isinstance(error, Exception):
            reason = next(iter(str(error).splitlines()), "") or kind.__name__
            write_atomically(self.work / "failure.json", to_json({"run": self.specification.id, "reason": reason}))
        self.lock.close()

    def resume(self, learner):
        """The progress of an earlier attempt at the same specification, put into the learner; else a fresh one."""
        path = self.work / "state.pt"
        if not path.exists():
            return Progress()
        state = load_tensors(path)
        if state["sha256"] != self.specification.digest:
            raise UserError(f"{path}: the state of another run; remove {self.work}")
        learner.load_state_dict(state["learner"])
        progress = Progress(**state["progress"])
        progress.sums = {name: value.to(learner.trainer.lr.device) for name, value in progress.sums.items()}
        progress.attempts += 1
        return progress

    def save_sometimes(self, learner, progress, seconds):
        """Save if the last time is `save_seconds` ago. Raises RunFailed, saving nothing, once a sum is not finite."""
        if time.monotonic() - self.saved < self.save_seconds:
            return
        for name, value in progress.sums.items():
            if not value.isfinite().all():
                raise RunFailed(f"{name} is not finite in epoch {progress.epoch}")
        state = {**vars(progress), "seconds": seconds}
        save_tensors(
            self.work / "state.pt",
            {"sha256": self.specification.digest, "learner": learner.state_dict(), "progress": state},
        )
        self.saved = time.monotonic()

    def report(self, progress, num_epochs):
        """Leave a line for `distillbench status`."""
        row = progress.rows[-1]
        content = {"epoch": row["epoch"], "epochs": num_epochs, "test_top1": row["test_top1"]}
        write_atomically(self.work / "progress.json", to_json(content))

    def discard(self):
        shutil.rmtree(self.work)

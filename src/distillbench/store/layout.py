"""What a run consists of, what is made from what, and where it lies. Nothing here is read or written.

A run's directory is results/runs/ID; state in flight lies in results/work/ID. Evaluations lie in eval/, a folder a
checkpoint: `evaluations` is the one place that knows its name.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from distillbench import tasks
from distillbench.config import protocols
from distillbench.config.specification import CHECKPOINTS
from distillbench.errors import UserError, one_of

TEST = "test"  # the split that weights are evaluated on, whatever the protocol
RUN_FILES = ("spec.json", "record.json", "history.csv", "model.best.pt", "model.last.pt")
STATE, PROGRESS, FAILURE, LOCK = "state.pt", "progress.json", "failure.json", "lock"  # in a work directory
FINISHED = "finished"  # likewise: the files of a finished run on their way to their place


class Evaluation(NamedTuple):
    """Of a checkpoint on a split. folder: below the run's directory."""

    checkpoint: str
    split: str
    folder: str


class Part(NamedTuple):
    """Files that are made together, each part from the one before it."""

    name: str
    files: tuple[str, ...]  # below the run's directory

    def here(self, directory):
        """Whether all of them are in a run's directory."""
        return all((Path(directory) / name).exists() for name in self.files)


class Parts(NamedTuple):
    """All that a run consists of, in the order in which it is made."""

    training: Part
    predictions: Part
    metrics: Part


TRAINING = Part("training", RUN_FILES)


def evaluations(specification):
    """{checkpoint: `Evaluation`} of a run, as its task evaluates.

    Raises UserError for a task or protocol that is unknown here.
    """
    return _evaluations(_task(specification))


def parts(specification):
    """The `Parts` of a run. Raises UserError like `evaluations`."""
    return _parts(_task(specification))


def known_files():
    """The files that a run of any task may have."""
    return {name for task in tasks.names() for part in _parts(task) for name in part.files}


def _task(specification):
    """The name of a run's task, where task and protocol are known."""
    task, protocol = specification.data.get("task"), specification["dataset"].get("protocol")
    if task not in tasks.names():
        raise UserError(f"{specification.id}: task: {one_of(task, tasks.names(), 'task')}")
    protocols.read_protocol(protocol, f"{specification.id}: dataset.protocol")
    return task


@cache
def _evaluations(task):
    """The folder is eval/SPLIT-CHECKPOINT-EVAL, EVAL being the digest of how the task evaluates."""
    text = json.dumps(tasks.task(task).protocol, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return {c: Evaluation(c, TEST, f"eval/{TEST}-{c}-{digest}") for c in CHECKPOINTS}


@cache
def _parts(task):
    def of_each(name):
        return tuple(f"{evaluation.folder}/{name}" for evaluation in _evaluations(task).values())

    predictions, metrics = Part("predictions", of_each("predictions.npz")), Part("metrics", of_each("metrics.json"))
    return Parts(TRAINING, predictions, metrics)


def weights_file(checkpoint):
    return f"model.{checkpoint}.pt"


def finished(directory):
    """Whether all files of a trained run are in its directory."""
    return TRAINING.here(directory)

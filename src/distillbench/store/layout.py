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
from distillbench.config.specification import CHECKPOINTS
from distillbench.errors import UserError, one_of

SPLITS = {"published": "test"}  # by the protocol of a specification's dataset: where its weights are evaluated
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
    """{checkpoint: `Evaluation`} of a run: on the split of its protocol, as its task evaluates.

    Raises UserError for a task or protocol that is unknown here.
    """
    return _evaluations(*_task_and_protocol(specification))


def parts(specification):
    """The `Parts` of a run. Raises UserError like `evaluations`."""
    return _parts(*_task_and_protocol(specification))


def known_files():
    """The files that a run of any task and protocol may have."""
    found = (_parts(task, protocol) for task in tasks.names() for protocol in SPLITS)
    return {name for parts in found for part in parts for name in part.files}


def _task_and_protocol(specification):
    data, dataset = specification.data, specification["dataset"]
    stated = {"task": (data.get("task"), tasks.names()), "dataset.protocol": (dataset.get("protocol"), tuple(SPLITS))}
    for key, (value, known) in stated.items():
        if value not in known:
            raise UserError(f"{specification.id}: {key}: {one_of(value, known, key.rpartition('.')[2])}")
    return [value for value, _ in stated.values()]


@cache
def _evaluations(task, protocol):
    """The folder is eval/SPLIT-CHECKPOINT-EVAL, EVAL being the digest of how the task evaluates."""
    text, split = json.dumps(tasks.task(task).protocol, sort_keys=True), SPLITS[protocol]
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return {c: Evaluation(c, split, f"eval/{split}-{c}-{digest}") for c in CHECKPOINTS}


@cache
def _parts(task, protocol):
    def of_each(name):
        return tuple(f"{evaluation.folder}/{name}" for evaluation in _evaluations(task, protocol).values())

    predictions, metrics = Part("predictions", of_each("predictions.npz")), Part("metrics", of_each("metrics.json"))
    return Parts(TRAINING, predictions, metrics)


def weights_file(checkpoint):
    return f"model.{checkpoint}.pt"


def finished(directory):
    """Whether all files of a trained run are in its directory."""
    return TRAINING.here(directory)

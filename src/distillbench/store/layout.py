"""What a run consists of, what is made from what, and where it lies. Nothing here is read or written.

A run's directory is results/runs/ID; state in flight lies in results/work/ID. Evaluations lie in eval/, a folder a
checkpoint, whose name ends with the digest of the evaluation protocol.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from distillbench.config.specification import CHECKPOINTS

PROTOCOL = {"version": 1, "transform": "published test transform", "logits": "float16"}
SPLIT = "test"
RUN_FILES = ("spec.json", "record.json", "history.csv", "model.best.pt", "model.last.pt")
STATE, PROGRESS, FAILURE, LOCK = "state.pt", "progress.json", "failure.json", "lock"  # in a work directory
FINISHED = "finished"  # likewise: the files of a finished run on their way to their place


@cache
def protocol_digest():
    return hashlib.sha256(json.dumps(PROTOCOL, sort_keys=True).encode()).hexdigest()[:8]


def evaluation_directory(run, checkpoint):
    """RUN/eval/SPLIT-CHECKPOINT-EVAL, EVAL being the digest of the evaluation protocol."""
    return Path(run) / "eval" / f"{SPLIT}-{checkpoint}-{protocol_digest()}"


class Part(NamedTuple):
    """Files that are made together, each part from the one before it."""

    name: str
    files: tuple[str, ...]  # below the run's directory

    def here(self, directory):
        """Whether all of them are in a run's directory."""
        return all((Path(directory) / name).exists() for name in self.files)


def _of_each_checkpoint(name):
    return tuple((evaluation_directory("", checkpoint) / name).as_posix() for checkpoint in CHECKPOINTS)


TRAINING = Part("training", RUN_FILES)
PREDICTIONS = Part("predictions", _of_each_checkpoint("predictions.npz"))
METRICS = Part("metrics", _of_each_checkpoint("metrics.json"))
PARTS = (TRAINING, PREDICTIONS, METRICS)


def weights_file(checkpoint):
    return f"model.{checkpoint}.pt"


def finished(directory):
    """Whether all files of a trained run are in its directory."""
    return TRAINING.here(directory)

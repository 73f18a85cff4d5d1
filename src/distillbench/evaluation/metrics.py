"""Metrics of stored predictions. To add one, write a function with `@metric`: no run trains or predicts again.

Each takes logits (float64, [N, C]) and targets (integers, [N]) and returns a float.
"""

import hashlib

import numpy as np
from scipy.special import log_softmax

from distillbench.errors import UserError
from distillbench.evaluation import PROTOCOL, SPLIT, evaluation_directory
from distillbench.files import to_json, write_atomically

SCHEMA = 1
METRICS = {}


def metric(function):
    METRICS[function.__name__] = function
    return function


@metric
def top1(logits, targets):
    """Percent of images whose largest logit is the target's."""
    return _top(logits, targets, 1)


@metric
def top5(logits, targets):
    """Percent of images whose target is among the five largest logits."""
    return _top(logits, targets, 5)


@metric
def nll(logits, targets):
    """Mean negative log-likelihood of the target, in nats."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(targets)), targets].mean())


def _top(logits, targets, k):
    ranked = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return float(100 * (ranked == targets[:, None]).any(axis=1).mean())


def read_predictions(path):
    """(logits float64 [N, C], targets [N], digest of the run's specification) of a predictions.npz."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            logits, targets = archive["logits"].astype(np.float64), archive["targets"]
            stated, run = str(archive["targets_sha256"]), str(archive["run_sha256"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `distillbench evaluate` makes it from the run's weights") from None
    except Exception as error:  # a damaged zip raises half a dozen types
        raise UserError(f"{path}: not readable predictions ({error}); remove the file and evaluate again") from None
    if hashlib.sha256(np.ascontiguousarray(targets)).hexdigest() != stated:
        raise UserError(f"{path}: the labels are not those it was written with; remove the file and evaluate again")
    return logits, targets, run


def write_metrics(run, checkpoint, task="classification"):
    """Compute metrics.json beside predictions.npz, in long form; returns its content. run: the run's directory."""
    directory = evaluation_directory(run, checkpoint)
    logits, targets, digest = read_predictions(directory / "predictions.npz")
    values = [
        {
            "task": task,
            "split": SPLIT,
            "checkpoint": checkpoint,
            "metric": name,
            "value": function(logits, targets),
        }
        for name, function in METRICS.items()
    ]
    content = {"schema": SCHEMA, "run_sha256": digest, "evaluation": PROTOCOL, "metrics": values}
    write_atomically(directory / "metrics.json", to_json(content))
    return content

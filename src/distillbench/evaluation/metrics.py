"""Metrics of stored predictions. To add one, write a function with `@metric`: no run trains or predicts again.

Each takes logits (float64, [N, C]) and targets (integers, [N]) and returns a float; those with `@metric_to_teacher`
take the teacher's logits [N, C] as a third argument and exist for distilled students only. Probabilities are at
temperature 1.
"""

import hashlib

import numpy as np
from scipy.special import log_softmax

from distillbench.errors import UserError
from distillbench.evaluation import PROTOCOL, SPLIT, evaluation_directory
from distillbench.files import to_json, write_atomically

SCHEMA = 1
METRICS, METRICS_TO_TEACHER = {}, {}
ECE_BINS = 15


def metric(function):
    METRICS[function.__name__] = function
    return function


def metric_to_teacher(function):
    METRICS_TO_TEACHER[function.__name__] = function
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


@metric
def brier(logits, targets):
    """Mean squared distance of the probabilities from the one-hot target, summed over classes: 0 to 2."""
    distance = np.exp(log_softmax(logits, axis=1))
    distance[np.arange(len(targets)), targets] -= 1
    return float((distance**2).sum(axis=1).mean())


@metric
def ece(logits, targets):
    """Expected calibration error in percent: |accuracy - confidence| over 15 bins of equal width, weighted by size."""
    confidence = np.exp(log_softmax(logits, axis=1).max(axis=1))
    surplus = (logits.argmax(axis=1) == targets) - confidence
    bins = np.minimum(np.ceil(confidence * ECE_BINS).astype(int) - 1, ECE_BINS - 1)  # (0, 1/15], (1/15, 2/15], ...
    return float(100 * np.abs(np.bincount(bins, surplus, ECE_BINS)).sum() / len(targets))


@metric_to_teacher
def agreement(logits, targets, teacher):
    """Percent of images for which student and teacher predict the same class."""
    return float(100 * (logits.argmax(axis=1) == teacher.argmax(axis=1)).mean())


@metric_to_teacher
def kl_to_teacher(logits, targets, teacher):
    """Mean KL(teacher || student), in nats."""
    log_student, log_teacher = log_softmax(logits, axis=1), log_softmax(teacher, axis=1)
    return float((np.exp(log_teacher) * (log_teacher - log_student)).sum(axis=1).mean())


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


def write_metrics(store, run_id, checkpoint, task="classification"):
    """Compute metrics.json of a run beside its predictions.npz, in long form; returns its content.

    The predictions of the run's teacher are read too. Raises UserError where something is missing or damaged.
    """
    directory, specification = evaluation_directory(store.run(run_id), checkpoint), store.specification(run_id)
    logits, targets, digest = read_predictions(directory / "predictions.npz")
    values = {name: function(logits, targets) for name, function in METRICS.items()}
    if specification.teacher_id:
        made_by = evaluation_directory(store.run(specification.teacher_id), specification["teacher"]["checkpoint"])
        teacher, theirs, _ = read_predictions(made_by / "predictions.npz")
        if not np.array_equal(targets, theirs):
            raise UserError(f"{made_by}: predictions for other images than {directory}; remove both, evaluate again")
        values |= {name: function(logits, targets, teacher) for name, function in METRICS_TO_TEACHER.items()}
    lines = [
        {"task": task, "split": SPLIT, "checkpoint": checkpoint, "metric": name, "value": value}
        for name, value in values.items()
    ]
    content = {"schema": SCHEMA, "run_sha256": digest, "evaluation": PROTOCOL, "metrics": lines}
    write_atomically(directory / "metrics.json", to_json(content))
    return content

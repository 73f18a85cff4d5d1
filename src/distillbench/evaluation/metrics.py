"""Metrics of stored predictions. To add one, write a function with `@metric`: no run trains or predicts again.

Each takes `Predictions` and returns a float; those with `@metric_to_teacher` take those of the teacher as a second
argument and exist for distilled students only. Probabilities are at temperature 1.
"""

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from distillbench.errors import RunFailed, UserError
from distillbench.files import to_json, write_atomically
from distillbench.store.identity import identity_of
from distillbench.store.layout import PROTOCOL, SPLIT, evaluation_directory

SCHEMA = 1
METRICS, METRICS_TO_TEACHER = {}, {}
ECE_BINS = 15
RANKS = ("target_rank", "first_classes", "first_logit", "target_logit", "log_sum_exp")


@dataclass(frozen=True)
class Predictions:
    """What predictions.npz holds of N images and C classes.

    logits: float64 [N, C], rounded to fp16; targets: integers [N]; ranks: {name: array} of `RANKS`, as computed in the
    run's precision, empty in predictions from before they were kept: then what ranks is computed from the logits.
    """

    logits: np.ndarray
    targets: np.ndarray
    ranks: dict
    run_sha256: str
    weights_sha256: str | None = None
    precision: str = "fp16"  # in which the ranks were computed

    @cached_property
    def log_probabilities(self):
        """[N, C], from the logits in fp16."""
        return log_softmax(self.logits, axis=1)

    @cached_property
    def target_rank(self):
        """[N]: how many classes come before the target; 0 is a hit."""
        if self.ranks:
            return self.ranks["target_rank"]
        return (self._order == self.targets[:, None]).argmax(axis=1)

    @cached_property
    def first_class(self):
        """[N]: the predicted class."""
        return self.ranks["first_classes"][:, 0] if self.ranks else self._order[:, 0]

    @cached_property
    def confidence(self):
        """[N]: the probability of the predicted class."""
        if self.ranks:
            return np.exp(self.ranks["first_logit"].astype(np.float64) - self.ranks["log_sum_exp"])
        return np.exp(self.log_probabilities.max(axis=1))

    @cached_property
    def target_log_probability(self):
        """[N]"""
        if self.ranks:
            return self.ranks["target_logit"].astype(np.float64) - self.ranks["log_sum_exp"]
        return self.log_probabilities[np.arange(len(self.targets)), self.targets]

    @cached_property
    def _order(self):
        return np.argsort(-self.logits, axis=1, kind="stable")


def metric(function):
    METRICS[function.__name__] = function
    return function


def metric_to_teacher(function):
    METRICS_TO_TEACHER[function.__name__] = function
    return function


@metric
def top1(predictions):
    """Percent of images whose largest logit is the target's."""
    return float(100 * (predictions.target_rank < 1).mean())


@metric
def top5(predictions):
    """Percent of images whose target is among the five largest logits."""
    return float(100 * (predictions.target_rank < 5).mean())


@metric
def nll(predictions):
    """Mean negative log-likelihood of the target, in nats."""
    return float(-predictions.target_log_probability.mean())


@metric
def brier(predictions):
    """Mean squared distance of the probabilities from the one-hot target, summed over classes: 0 to 2."""
    distance = np.exp(predictions.log_probabilities)
    distance[np.arange(len(distance)), predictions.targets] -= 1
    return float((distance**2).sum(axis=1).mean())


@metric
def ece(predictions):
    """Expected calibration error in percent: |accuracy - confidence| over 15 bins of equal width, weighted by size."""
    confidence = predictions.confidence
    surplus = (predictions.target_rank == 0) - confidence
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)  # (0, 1/15], (1/15, 2/15], ...
    return float(100 * np.abs(np.bincount(bins, surplus, ECE_BINS)).sum() / len(confidence))


@metric_to_teacher
def agreement(predictions, teacher):
    """Percent of images for which student and teacher predict the same class."""
    return float(100 * (predictions.first_class == teacher.first_class).mean())


@metric_to_teacher
def kl_to_teacher(predictions, teacher):
    """Mean KL(teacher || student), in nats."""
    log_student, log_teacher = predictions.log_probabilities, teacher.log_probabilities
    return float((np.exp(log_teacher) * (log_teacher - log_student)).sum(axis=1).mean())


def read_predictions(path):
    """The `Predictions` in a predictions.npz. Raises UserError if the file is absent, damaged or something else."""
    return _parsed(path, _content(path))


def _content(path):
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `distillbench evaluate` makes it from the run's weights") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _parsed(path, content):
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            content = dict(archive)
        logits, targets = content["logits"].astype(np.float64), content["targets"]
        texts = {name: str(content[name]) for name in ("run_sha256", "weights_sha256", "precision") if name in content}
        stated, texts["run_sha256"] = str(content["targets_sha256"]), texts["run_sha256"]
        ranks = {name: content[name] for name in RANKS} if RANKS[0] in content else {}
        if ranks and not _are_ranks(ranks, logits.shape):
            raise ValueError("ranks that are none")
        if logits.ndim != 2 or len({len(logits), *map(len, (targets, *ranks.values()))}) > 1 or not len(targets):
            raise ValueError("arrays of different lengths")
    except Exception as error:  # a damaged zip raises half a dozen types
        raise UserError(f"{path}: not readable predictions ({error}); remove the file and evaluate again") from None
    if hashlib.sha256(np.ascontiguousarray(targets)).hexdigest() != stated:
        raise UserError(f"{path}: the labels are not those it was written with; remove the file and evaluate again")
    return Predictions(logits, targets, ranks, **texts)


def _are_ranks(ranks, shape):
    classes = shape[1]
    whole = [ranks[name] for name in ("target_rank", "first_classes")]
    return (
        [ranks[name].ndim for name in RANKS] == [1, 2, 1, 1, 1]
        and all(array.dtype.kind == "i" and ((array >= 0) & (array < classes)).all() for array in whole)
        and all(ranks[name].dtype.kind == "f" for name in RANKS[2:])
    )


def write_metrics(store, run_id, checkpoint):
    """Compute metrics.json of a run beside its predictions.npz, in long form; returns its content.

    The predictions of the run's teacher are read too. The file names both, by their digest, that of the weights behind
    them and the precision in which they were ranked.
    Raises UserError where something is missing, damaged or not what it names, RunFailed if a metric is not finite.
    """
    directory, specification = evaluation_directory(store.run(run_id), checkpoint), store.specification(run_id)
    path = directory / "predictions.npz"
    predictions, named = _read_of(path, specification.digest)
    record = store.record(run_id)
    weights = record and record["weights"].get(checkpoint)
    if weights and predictions.weights_sha256 not in (None, weights):
        raise UserError(
            f"{path}: predictions of other weights than record.json names; `distillbench evaluate {run_id}`"
        )
    made_from = {"predictions": named}
    values = {name: function(predictions) for name, function in METRICS.items()}
    if specification.teacher_id:
        made_by = evaluation_directory(store.run(specification.teacher_id), specification["teacher"]["checkpoint"])
        digest = store.specification(specification.teacher_id).digest
        teacher, made_from["teacher_predictions"] = _read_of(made_by / "predictions.npz", digest)
        if not np.array_equal(predictions.targets, teacher.targets):
            raise UserError(f"{made_by}: predictions for other images than {directory}; remove both, evaluate again")
        values |= {name: function(predictions, teacher) for name, function in METRICS_TO_TEACHER.items()}
    for name, value in values.items():
        if not np.isfinite(value):
            raise RunFailed(f"{run_id}: {name} of the {checkpoint} predictions is {value}; the training diverged")
    lines = [
        {"task": specification["task"], "split": SPLIT, "checkpoint": checkpoint, "metric": name, "value": value}
        for name, value in values.items()
    ]
    content = {"schema": SCHEMA, "run_sha256": specification.digest, "evaluation": PROTOCOL, "metrics": lines}
    content |= made_from
    write_atomically(directory / "metrics.json", to_json(content))
    return content


def _read_of(path, run_sha256):
    """(predictions, what tells them from others), from one reading of the file, as another may take its place.

    ranked_in: "fp16" where they hold no ranks.
    """
    content = _content(path)
    predictions = _parsed(path, content)
    if predictions.run_sha256 != run_sha256:
        raise UserError(f"{path}: predictions of another run; remove the file and evaluate again")
    if not np.isfinite(predictions.logits).all():
        raise RunFailed(f"{path}: logits are not finite; the training diverged: lower SOLVER.LR")
    named = {**identity_of(io.BytesIO(content)), "ranked_in": predictions.precision}
    return predictions, {**named, "sha256": hashlib.sha256(content).hexdigest()}

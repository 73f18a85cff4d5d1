"""Predictions of a classifier as predictions.npz holds them."""

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from distillbench.errors import UserError
from distillbench.tasks import Lacking

RANKS = ("target_rank", "first_classes", "first_logit", "target_logit", "log_sum_exp")


@dataclass(frozen=True)
class Predictions:
    """Of N images and C classes. What is asked for and not stored raises `Lacking`.

    targets: integers [N]; stored: {name: array} with "logits" [N, C], rounded to fp16, or `RANKS`, as computed in the
    run's precision, or both. Without ranks, as before they were kept, what ranks is computed from the logits.
    """

    targets: np.ndarray
    stored: dict
    run_sha256: str = ""
    weights_sha256: str | None = None
    precision: str = "fp16"  # in which the ranks were computed

    @cached_property
    def logits(self):
        """float64 [N, C], rounded to fp16."""
        if "logits" not in self.stored:
            raise Lacking("logits of all classes", "what needs them can be computed only where predicting keeps them")
        return self.stored["logits"].astype(np.float64)

    @cached_property
    def log_probabilities(self):
        """[N, C], from the logits in fp16."""
        shifted = self.logits - self.logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    @cached_property
    def target_rank(self):
        """[N]: how many classes come before the target; 0 is a hit."""
        if self._ranked:
            return self.stored["target_rank"]
        return (self._order == self.targets[:, None]).argmax(axis=1)

    @cached_property
    def first_class(self):
        """[N]: the predicted class."""
        return self.stored["first_classes"][:, 0] if self._ranked else self._order[:, 0]

    @cached_property
    def confidence(self):
        """[N]: the probability of the predicted class."""
        if self._ranked:
            return np.exp(self.stored["first_logit"].astype(np.float64) - self.stored["log_sum_exp"])
        return np.exp(self.log_probabilities.max(axis=1))

    @cached_property
    def target_log_probability(self):
        """[N]"""
        if self._ranked:
            return self.stored["target_logit"].astype(np.float64) - self.stored["log_sum_exp"]
        return self.log_probabilities[np.arange(len(self.targets)), self.targets]

    @property
    def finite(self):
        """Whether the logits are, as far as they are stored."""
        return "logits" not in self.stored or bool(np.isfinite(self.stored["logits"]).all())

    @property
    def _ranked(self):
        return RANKS[0] in self.stored

    @cached_property
    def _order(self):
        return np.argsort(-self.logits, axis=1, kind="stable")


def parse(content, path):
    """The `Predictions` in the bytes of a predictions.npz. Raises UserError, with its path, if they are none."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            content = dict(archive)
        targets, stated = content["targets"], str(content["targets_sha256"])
        texts = {name: str(content[name]) for name in ("weights_sha256", "precision") if name in content}
        texts["run_sha256"] = str(content["run_sha256"])
        kept = (("logits",) if "logits" in content else ()) + (RANKS if RANKS[0] in content else ())
        stored = {name: content[name] for name in kept}
        _require_form(targets, stored)
    except Exception as error:  # a damaged zip raises half a dozen types
        raise UserError(f"{path}: not readable predictions ({error}); remove the file and evaluate again") from None
    if hashlib.sha256(np.ascontiguousarray(targets)).hexdigest() != stated:
        raise UserError(f"{path}: the labels are not those it was written with; remove the file and evaluate again")
    return Predictions(targets, stored, **texts)


def _require_form(targets, stored):
    """Raises ValueError unless arrays are of one length, and of the kinds that their names stand for."""
    if not stored:
        raise ValueError("neither logits nor ranks")
    logits = stored.get("logits")
    if logits is not None and (logits.ndim != 2 or logits.dtype.kind != "f"):
        raise ValueError("logits that are none")
    if RANKS[0] in stored and not _are_ranks(stored, np.inf if logits is None else logits.shape[1]):
        raise ValueError("ranks that are none")
    if len({len(targets), *map(len, stored.values())}) > 1 or not len(targets):
        raise ValueError("arrays of different lengths")


def _are_ranks(stored, classes):
    whole = [stored[name] for name in ("target_rank", "first_classes")]
    return (
        [stored[name].ndim for name in RANKS] == [1, 2, 1, 1, 1]
        and all(array.dtype.kind == "i" and ((array >= 0) & (array < classes)).all() for array in whole)
        and all(stored[name].dtype.kind == "f" for name in RANKS[2:])
    )

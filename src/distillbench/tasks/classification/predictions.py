"""Predictions of a classifier as predictions.npz holds them."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from distillbench.errors import UserError
from distillbench.tasks import Lacking

RANKS = ("target_rank", "first_classes", "first_logit", "target_logit", "log_sum_exp")
SHARD = 2**21  # logits that are computed with at once; all of most data sets, 2 097 images of ImageNet


@dataclass(frozen=True)
class Predictions:
    """Of N images and C classes. What is asked for and not stored raises `Lacking`.

    targets: integers [N]; stored: {name: array} with "logits" [N, C], rounded to fp16, or `RANKS`, as computed in the
    run's precision, or both. Without ranks, as before they were kept, what ranks is computed from the logits. What
    needs the logits of all classes is computed shard by shard (`each`): stored are 2 bytes of a logit, computing takes
    some times 8.
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

    def shards(self):
        """Yield the `Predictions` of some images after the other, none of more than `SHARD` logits."""
        images = max(1, SHARD // self.stored["logits"].shape[1]) if "logits" in self.stored else len(self.targets)
        for start in range(0, len(self.targets), images):
            part = slice(start, start + images)
            stored = {name: array[part] for name, array in self.stored.items()}
            yield replace(self, targets=self.targets[part], stored=stored)

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
        shards = self.shards() if "logits" in self.stored else ()
        return all(np.isfinite(shard.stored["logits"]).all() for shard in shards)

    @property
    def _ranked(self):
        return RANKS[0] in self.stored

    @cached_property
    def _order(self):
        return np.argsort(-self.logits, axis=1, kind="stable")


def each(function, *predictions):
    """float64 [N]: what a function computes of the shards [n] of all `predictions`, which are of the same images."""
    shards = zip(*(held.shards() for held in predictions), strict=True)
    return np.concatenate([function(*parts) for parts in shards])


def parse(file, path):
    """The `Predictions` in an open predictions.npz. Raises UserError, with its path, if it holds none."""
    try:
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
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

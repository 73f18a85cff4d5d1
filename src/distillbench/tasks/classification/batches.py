"""What a classifier is trained on, and what it gives."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from distillbench.errors import UserError


class Output:
    """What a network makes of one view: logits [N, C] and the published feature dictionary.

    features: {"feats": [maps [N, D, H, W]], "preact_feats": [the same before the ReLU], "pooled_feat": [N, D]};
    distillbench.models says what deviates in some networks. `maps`, `stages` and `pooled` are alike for all.
    """

    def __init__(self, logits, features):
        """logits: the tensor, or a function of no arguments that gives it, which is called if they are asked for."""
        self._logits, self.features = logits, features

    @property
    def logits(self):
        if callable(self._logits):
            self._logits = self._logits()
        return self._logits

    def maps(self, kind="feats"):
        """The maps of a kind, "feats" or "preact_feats", of the stem and of every stage, the deepest last."""
        first = [self.features["stem"]] if "stem" in self.features else []
        return [*first, *self.features[kind]]

    def stages(self, kind="feats"):
        """The same without the stem."""
        return self.maps(kind)[1:]

    @property
    def pooled(self):
        """The average of the last map over its pixels, [N, D]."""
        return self.features["pooled_feat"].flatten(1)


class Numbered(NamedTuple):
    """A view as it came from the feed, and which of all views of all training images its rows are, [N] int64."""

    view: Tensor
    version: int  # rises when something is written into the view
    number: Tensor

    @classmethod
    def of(cls, view, number):
        return cls(view, view._version, number)

    def is_still(self, view):
        return view is self.view and view._version == self.version


class Labels:
    """The labels of a batch's images, as the cross entropy in training compares with them.

    target: [N]; smoothing: as of `F.cross_entropy`; share, partner: with mixup, the share of each image in its mixture,
    0-d, and the label of the other, [N]. read: whether the cross entropy has been asked for.
    """

    def __init__(self, target, smoothing=0.0, share=None, partner=None):
        self.target, self.smoothing, self.share, self.partner, self.read = target, smoothing, share, partner, False

    def cross_entropy(self, logits):
        self.read = True
        loss = F.cross_entropy(logits, self.target, label_smoothing=self.smoothing)
        if self.share is None:
            return loss
        other = F.cross_entropy(logits, self.partner, label_smoothing=self.smoothing)
        return self.share * loss + (1 - self.share) * other

    def require_read(self, method, losses):
        """Raises UserError where a method of a name has its loss on the labels from elsewhere, and labels differ.

        One whose losses have none on labels may have its images mixed.
        """
        if not self.read and (self.smoothing or (self.share is not None and "ce" in losses)):
            key = "LABEL_SMOOTHING" if self.smoothing else "MIXUP"
            problem = f"SOLVER.{key} would have no effect on the method's own cross entropy"
            raise UserError(f"{method}: {problem}; take batch.cross_entropy(student.logits)")


class Batch(NamedTuple):
    """A batch with names: `views` holds `Method.views` augmentations [N, 3, H, W] of the same images.

    Where batch statistics are those of micro-batches, it is one of these.
    numbered: the views as they came from the feed, where a table of the teacher's logits is looked up.
    """

    views: tuple[Tensor, ...]
    target: Tensor  # [N], int64 class numbers; of a mixture, that of the image with the larger share
    index: Tensor  # [N], int64 positions in the training set, of the same images
    numbered: tuple[Numbered, ...] = ()
    labels: Labels | None = None

    def cross_entropy(self, logits):
        """The loss on the labels, 0-d, of logits [N, C]; labels are smoothed and mixed as the run has them."""
        return (self.labels or Labels(self.target)).cross_entropy(logits)

    def view_numbers(self):
        """The number of each view; None unless the views are numbered, and still those of the feed."""
        there = len(self.numbered) == len(self.views) and all(map(Numbered.is_still, self.numbered, self.views))
        return tuple(known.number for known in self.numbered) if there else None

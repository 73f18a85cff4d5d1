"""What a classifier is trained on, and what it gives."""

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """What a network makes of one view: logits [N, C] and the published feature dictionary.

    features: {"feats": [maps [N, D, H, W]], "preact_feats": [the same before the ReLU], "pooled_feat": [N, D]};
    distillbench.models says what deviates in some networks. `maps`, `stages` and `pooled` are alike for all.
    """

    logits: Tensor
    features: dict

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


class Batch(NamedTuple):
    """A batch with names: `views` holds `Method.views` augmentations [N, 3, H, W] of the same images.

    Where batch statistics are those of micro-batches, it is one of these.
    numbered: the views as they came from the feed, where a table of the teacher's logits is looked up.
    """

    views: tuple[Tensor, ...]
    target: Tensor  # [N], int64 class numbers
    index: Tensor  # [N], int64 positions in the training set
    numbered: tuple[Numbered, ...] = ()

    def view_numbers(self):
        """The number of each view; None unless the views are numbered, and still those of the feed."""
        there = len(self.numbered) == len(self.views) and all(map(Numbered.is_still, self.numbered, self.views))
        return tuple(known.number for known in self.numbered) if there else None

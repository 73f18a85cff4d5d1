"""From resident images to augmented batches: gathers only, no loader, no hidden random state."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distillbench.config import components
from distillbench.config.views import view_count
from distillbench.data.augment import Mixup, augmentation_of
from distillbench.engine.streams import generator
from distillbench.tasks.classification.batches import Batch, Labels, Numbered

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "tf32": torch.float32, "bf16": torch.float32}  # of weights
EVALUATION_BATCH = {"cpu": 128}  # what fits a core's cache; elsewhere 1024


class Split(NamedTuple):
    """A split of a dataset on the device: images uint8 [N, H, W, 3], labels int64 [N].

    Of one that is streamed, see `stream.StreamSplit`, images are something else that has `to`.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor  # [3], of pixels in 0..1, in the type that networks compute in
    std: Tensor
    positions: Tensor  # int64 [N], in the published split

    chosen = ("images", "labels", "positions")  # fields of which `part` has a part

    @classmethod
    def put(cls, images, labels, specification, device):
        """images, labels: numpy arrays of a split of the specification's dataset."""
        declared, dtype = components.datasets()[specification["dataset"]["name"]], DTYPES[specification["precision"]]
        mean, std = (torch.tensor(declared[key], dtype=dtype, device=device) for key in ("mean", "std"))
        positions = torch.arange(len(labels), device=device)
        images = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
        return cls(images.to(device), torch.from_numpy(labels).to(device), mean, std, positions)

    def part(self, chosen):
        """The split of the images that a boolean array [N] chooses, in their order."""
        places = torch.from_numpy(np.flatnonzero(chosen)).to(self.labels.device)
        return self._replace(**{name: getattr(self, name).index_select(0, places) for name in self.chosen})

    def to(self, device):
        return type(self)(*(tensor.to(device) for tensor in self))

    def normalised(self, images):
        """uint8 [N, H, W, 3] -> floating point [N, 3, H, W], in channels-last memory."""
        return ((images.to(self.mean.dtype) / 255 - self.mean) / self.std).permute(0, 3, 1, 2)

    def batches(self, rank=0, ranks=1):
        """Yield (images, labels), normalised and as they are, in the order of the split, in large batches.

        Of these, where `ranks` processes share them, every one that is the `rank`-th's.
        """
        size = EVALUATION_BATCH.get(self.labels.device.type, 1024)
        for start in range(rank * size, len(self.labels), ranks * size):
            yield self.normalised(self.images[start : start + size]), self.labels[start : start + size]


class Feed:
    """Augmented batches of a resident split. The epoch's plan and the position in it are tensors that never move.

    plan: {"order": [N], and what the augmentation draws: [views, N]}, with `number_views` also {"number": [views, N]},
    with mixup {"share": [N]}; position: 0-d, how many images of the epoch are behind it; label_smoothing: of the labels
    that batches have; epoch, passed: where it is, as numbers of Python, for steps that are no replays.
    """

    numbered, label_smoothing = False, 0.0

    def __init__(self, split, views, seed):
        """views: of the specification, their count and augmentation."""
        self.split, self.seed, self.views = split, seed, views
        self.augmentation, self.mixup = augmentation_of(views["augmentation"]), Mixup(views.get("mixup", 0.0))
        self.images, self.epoch, self.passed = self.augmentation.prepared(split.images), 1, 0
        self.plan, self.position = self._plan(1), torch.zeros((), dtype=torch.int64)
        self.to(split.labels.device)

    def to(self, device):
        """Move all tensors to a device."""
        self.split, self.images, self.position = (x.to(device) for x in (self.split, self.images, self.position))
        self.plan = {name: tensor.to(device) for name, tensor in self.plan.items()}
        self.labels, self.device = self.split.labels, self.split.labels.device

    def __len__(self):
        return len(self.split.labels)

    def _plan(self, epoch):
        plan = epoch_plan(self.seed, epoch, len(self), self.views["count"], self.augmentation)
        if self.numbered:
            count = view_count(self.views["augmentation"])
            positions = self.split.positions.to(plan["order"].device)[plan["order"]]
            plan["number"] = positions * count + self.augmentation.numbers(plan)
        if self.mixup.alpha:
            plan["share"] = self.mixup.draw(generator(self.seed, "mixup", epoch), len(self))
        return plan

    def number_views(self):
        """Have batches say which views they hold, of an augmentation that has finitely many."""
        self.numbered = True
        self.plan["number"] = self._plan(1)["number"].to(self.device)

    def begin(self, epoch, position=0):
        """Go to a position, a number of images, of an epoch (from 1 on)."""
        for name, tensor in self._plan(epoch).items():
            self.plan[name].copy_(tensor)
        self.position.fill_(position)
        self.epoch, self.passed = epoch, position

    def fetch(self, size):
        """Make ready for a step with the next `size` images, outside of it: here they are all there."""

    def batch(self, size, offset=0):
        """The `Batch` of `size` images of the epoch, `offset` behind the position."""
        places = self.position + torch.arange(offset, offset + size, device=self.device)
        index = self.plan["order"].index_select(0, places)
        drawn = {n: draws.index_select(1, places) for n, draws in self.plan.items() if n not in ("order", "share")}
        numbers = tuple(drawn.pop("number", ()))
        views = tuple(
            self.split.normalised(self.augmentation.apply(self.images, index, {n: d[view] for n, d in drawn.items()}))
            for view in range(self.views["count"])
        )
        known = tuple(map(Numbered.of, views, numbers)) if numbers else ()
        return self._labelled(views, index, places, known)

    def _labelled(self, views, index, places, known=()):
        """The `Batch` of views of the images at `index`, mixed, and with labels smoothed, as the run has them."""
        target = self.labels.index_select(0, index)
        labels = Labels(target, self.label_smoothing)
        if self.mixup.alpha:
            share = self.plan["share"].index_select(0, places[:1]).reshape(()).to(views[0].dtype)
            views = tuple(self.mixup.apply(view, share) for view in views)
            labels = Labels(target, self.label_smoothing, share, self.mixup.partner(target))
        return Batch(views, target, index, known, labels)

    def advance(self, size):
        """Leave `size` images of the epoch behind."""
        self.position += size
        self.passed += size


def epoch_plan(seed, epoch, num_images, views, augmentation):
    """All random choices of an epoch: a pure function of its arguments, the same for every method at a seed.

    {"order": [num_images], and what the augmentation draws: [views, num_images]}
    """
    order = torch.randperm(num_images, generator=generator(seed, "order", epoch))
    return {"order": order, **augmentation.draw(generator(seed, "augmentation", epoch), views, num_images)}


def generated_feed(specification, num_images, device="cpu"):
    """A feed of random images and labels, shaped as those of the specification's dataset, which need not be here."""
    declared = components.datasets()[specification["dataset"]["name"]]
    size, stream = declared["image_size"], generator(0, "images", declared["name"])
    images = torch.randint(256, (num_images, size, size, 3), dtype=torch.uint8, generator=stream)
    labels = torch.randint(declared["num_classes"], (num_images,), generator=stream)
    split = Split.put(images.numpy(), labels.numpy(), specification, device)
    views = {**specification["views"], "augmentation": {"crop_padding": 1, "flip": True}}
    return Feed(split, views, specification["seed"])

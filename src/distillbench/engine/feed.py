"""From resident images to augmented batches: gathers only, no loader, no hidden random state."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from distillbench.engine.streams import generator
from distillbench.methods.base import Batch


class Resident(NamedTuple):
    """A split of a dataset on the device: images uint8 [N, H + 2p, W + 2p, 3], zero padded, labels [N]."""

    images: Tensor
    labels: Tensor
    padding: int
    mean: Tensor  # [3], of pixels in 0..1
    std: Tensor

    @classmethod
    def put(cls, images, labels, declared, device, dtype, padding=0):
        """images, labels: numpy arrays of a split; declared: the dataset's declaration."""
        padded = F.pad(torch.from_numpy(images), (0, 0, padding, padding, padding, padding))
        mean, std = (torch.tensor(declared[key], dtype=dtype, device=device) for key in ("mean", "std"))
        return cls(padded.to(device), torch.from_numpy(labels).to(device), padding, mean, std)

    def to(self, device):
        return self._replace(**{key: getattr(self, key).to(device) for key in ("images", "labels", "mean", "std")})

    def normalised(self, images):
        """uint8 [N, H, W, 3] -> floating point [N, 3, H, W], in channels-last memory."""
        return ((images.to(self.mean.dtype) / 255 - self.mean) / self.std).permute(0, 3, 1, 2)


class EpochPlan(NamedTuple):
    """All random choices of an epoch. V is the number of views, N of training images."""

    order: Tensor  # [N]
    rows: Tensor  # [V, N], top of the crop
    columns: Tensor  # [V, N], left of the crop
    flips: Tensor  # [V, N], bool

    def to(self, device):
        return EpochPlan(*(tensor.to(device) for tensor in self))


def epoch_plan(seed, epoch, num_images, views, augmentation):
    """The plan of an epoch: a pure function of its arguments, the same for every method at a seed."""
    order = torch.randperm(num_images, generator=generator(seed, "order", epoch))
    draws = generator(seed, "augmentation", epoch)
    positions = 2 * augmentation["crop_padding"] + 1
    rows, columns = (torch.randint(positions, (views, num_images), generator=draws) for _ in range(2))
    flips = torch.rand((views, num_images), generator=draws) < (0.5 if augmentation["flip"] else 0.0)
    return EpochPlan(order, rows, columns, flips)


def fetch(resident, plan, start, stop):
    """The batch at positions start..stop of an epoch's order."""
    index = plan.order[start:stop]
    views = tuple(
        _view(resident, index, rows[start:stop], columns[start:stop], flips[start:stop])
        for rows, columns, flips in zip(plan.rows, plan.columns, plan.flips, strict=True)
    )
    return Batch(views, resident.labels.index_select(0, index), index)


def _view(resident, index, rows, columns, flips):
    size = resident.images.shape[1] - 2 * resident.padding
    steps = torch.arange(size, device=index.device)
    across = torch.where(flips[:, None], size - 1 - steps, steps)
    images = resident.images[
        index[:, None, None], (rows[:, None] + steps)[:, :, None], (columns[:, None] + across)[:, None, :]
    ]
    return resident.normalised(images)

"""Micro-batches: the images that batch statistics are computed over, and what those of a step add up to.

Where a specification's `batch.statistics` is a number, every batch is cut into micro-batches of so many images, and
each is computed by one process. All of a step begin with the same weights and running statistics; the gradients are
those of the mean loss over the batch, and running statistics move once, to the mean over the micro-batches. So it does
not matter how many processes share them.
"""

from typing import NamedTuple

import torch
from torch.nn.modules.batchnorm import _NormBase

from distillbench.errors import UserError


class Part(NamedTuple):
    """A micro-batch of a step. counts: False for one that another process computes, too, and that adds nothing."""

    offset: int  # images of the batch in front of it
    size: int
    counts: bool = True


def cut(size, statistics):
    """[`Part`] of a batch of so many images, in the order of the plan.

    A remainder of one image joins the micro-batch before it: batch normalisation has no variance of one.
    """
    if statistics == "global":
        return [Part(0, size)]
    starts = list(range(0, size, statistics))
    if len(starts) > 1 and size - starts[-1] == 1:
        starts.pop()
    return [Part(start, end - start) for start, end in zip(starts, [*starts[1:], size], strict=True)]


def shared(size, statistics, rank=0, ranks=1):
    """The micro-batches of a batch that one of `ranks` processes computes.

    At least one: a process that is left without computes the first, and adds nothing.
    """
    parts = cut(size, statistics)
    return parts[rank::ranks] or [parts[0]._replace(counts=False)]


def require_fit(batch, group):
    """Raise UserError unless a group can share a specification's "batch" evenly."""
    size, statistics = batch["size"], batch["statistics"]
    if group.size == 1:
        return
    if statistics == "global":
        problem = f"statistics over whole batches are for one process, here are {group.size}"
        raise UserError(f"SOLVER.BATCH_STATISTICS: global: {problem}; start one, or plan with a number of images")
    number = len(cut(size, statistics))
    if number % group.size:
        fitting = ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)
        what = f"{number} micro-batches of {statistics} of the {size} images are not shared evenly by {group.size}"
        raise UserError(f"--nproc-per-node: {what} processes; start {fitting}")


def notes(batch, num_images):
    """[line of text] on a remainder that joins the micro-batch before it."""
    size, statistics, found = batch["size"], batch["statistics"], []
    for what, images in (("every batch", size), ("the last batch of an epoch", num_images % size)):
        if statistics != "global" and images > statistics and images % statistics == 1:
            found.append(f"{what}: its last micro-batch has {statistics + 1} images, as one alone has no statistics")
    return found


class Accumulation:
    """Gradients, sums and running statistics of a step, over its micro-batches and all processes."""

    def __init__(self, modules, size, statistics, group):
        """modules: those whose running statistics move."""
        self.size, self.group, self.number = size, group, len(cut(size, statistics))
        self.parts = shared(size, statistics, group.rank, group.size)
        self.counts = [_images(shared(size, statistics, rank, group.size)) for rank in range(group.size)]
        self.gradients, self.sums, self.whole = None, None, self.number == group.size == 1
        self.running = [] if self.whole else _running(modules)
        self.before = [buffer.clone() for buffer in self.running]
        self.moved = [torch.zeros_like(buffer) for buffer in self.running]  # sums of what they moved to

    @torch.no_grad()
    def add(self, part, gradients, sums):
        """gradients: lists of tensors, or None, as of `Trainer.gradients`; sums: as of `sums.batch_sums`."""
        if self.whole:
            self.gradients, self.sums = gradients, sums
            return
        weight, counts = part.counts * part.size / self.size, int(part.counts)
        gradients = [[None if g is None else g * weight for g in side] for side in gradients]
        sums = {name: value * counts for name, value in sums.items()}
        if self.gradients is not None:
            gradients = [list(map(_added, *sides)) for sides in zip(self.gradients, gradients, strict=True)]
            sums = {name: value + self.sums[name] for name, value in sums.items()}
        self.gradients, self.sums = gradients, sums
        for total, buffer, before in zip(self.moved, self.running, self.before, strict=True):
            total.add_(buffer, alpha=counts)
            buffer.copy_(before)

    @torch.no_grad()
    def total(self):
        """(gradients, sums) of the whole batch; with it the running statistics move."""
        if not self.whole:
            there = [gradient for side in self.gradients for gradient in side if gradient is not None]
            device = next(value.device for value in self.sums.values() if isinstance(value, torch.Tensor))
            self.sums = {name: _tensor(value, device) for name, value in self.sums.items()}
            self.group.sum([*there, *self.sums.values(), *self.moved])
            for total, buffer in zip(self.moved, self.running, strict=True):
                counter = not buffer.is_floating_point()  # of batches: the same in every part
                buffer.copy_(total // self.number if counter else total / self.number)
        return self.gradients, self.sums

    def gather(self, tensor):
        """The tensors [n, ...] of all images of this process's parts, of all images of the batch."""
        return self.group.gather(tensor[: self.counts[self.group.rank]], self.counts)


def _images(parts):
    return sum(part.size for part in parts if part.counts)


def _running(modules):
    norms = (norm for module in modules for norm in module.modules() if isinstance(norm, _NormBase) and norm.training)
    return [buffer for norm in norms for buffer in norm.buffers()]


def _added(one, other):
    return other if one is None else one if other is None else one + other


def _tensor(value, device):
    return value if isinstance(value, torch.Tensor) else torch.full((), value, dtype=torch.float64, device=device)

"""Images that are decoded while a run goes on: splits and batches of a dataset that stays in its files.

Worker processes read, decode and cut slices of an epoch's plan; what reaches the device is uint8, and normalised there.
Order, crops and flips are functions of the seed: no bit depends on how many workers there are.
"""

import os
from functools import partial
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from distillbench.config import components
from distillbench.data.augment import centre_view
from distillbench.data.listing import Listing
from distillbench.engine.feed import EVALUATION_BATCH, Feed, Split
from distillbench.engine.micro_batches import shared
from distillbench.engine.streams import generator
from distillbench.errors import UserError

SLICE = 32  # images that a worker hands over at once
MOST_WORKERS = 16  # unless more are asked for


class DecodingFailed(UserError):
    """An image that cannot be read or decoded, or a worker that died: between two steps, so that what is done stays."""


def workers_of(threads):
    """How many workers a run has by default: the cores that the run's processes on this machine leave free."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # of torchrun
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # macOS has none
    return max(0, min(MOST_WORKERS, cores // processes - threads))


def put(part, specification, device, workers=None):
    """The `Split` on a device of a split of `data.Images` or `data.Files`.

    workers: processes that decode images, 0 for none; None: as many as `workers_of` says.
    """
    if not isinstance(part, Listing):
        return Split.put(*part, specification, device)
    workers = workers_of(specification["threads"]) if workers is None else workers
    size = components.datasets()[specification["dataset"]["name"]]["image_size"]
    return StreamSplit.put(Pictures(part, size, workers), part.labels, specification, device)


def feed_of(split, specification, group):
    """The `Feed` of the images that a run trains on; group: the processes that share its batches."""
    views, seed = specification["views"], specification["seed"]
    if isinstance(split, StreamSplit):
        return StreamFeed(split, views, seed, specification["batch"], group)
    return Feed(split, views, seed)


class Pictures(NamedTuple):
    """What a streamed split has in the place of resident images: the files of the published split.

    size: of the square views, in pixels; workers: processes that decode.
    """

    listing: Listing
    size: int
    workers: int

    def to(self, device):
        return self

    def decoded(self, view, count, slices):
        """Yield the views uint8 [n, count, S, S, 3] of the images of each slice, in order, as workers make them.

        view: called with an image [H, W, 3] and what tells the view from others: epoch, position, number of the view;
        slices: list of (epoch, positions [n]).
        Raises DecodingFailed, naming the file.
        """
        views, workers = _Views(self.listing, self.size, view, count), min(self.workers, len(slices))
        own = torch.Generator()  # that workers are seeded from: torch's global one is not drawn from
        remaining = iter(DataLoader(views, batch_size=None, sampler=slices, num_workers=workers, generator=own))
        for number in range(len(slices)):
            try:
                made = next(remaining)
            except RuntimeError as error:
                if not str(error).startswith("DataLoader worker (pid"):
                    raise
                reason = str(error).splitlines()[0]
                raise DecodingFailed(f"{reason}; fewer --workers take less memory, the run goes on") from None
            if isinstance(made, str):
                raise DecodingFailed(made)
            if number == len(slices) - 1:
                del remaining  # with it the workers end
            yield made


class _Views(Dataset):
    """What a worker makes of a slice."""

    def __init__(self, listing, size, view, count):
        from distillbench.data.jpeg import decode  # torchvision, whose import resident images do without

        self.decode, self.listing, self.size, self.view, self.count = decode, listing, size, view, count

    def __getitem__(self, work):
        """The views; or the text of an error, as an exception would arrive with its traceback in its text."""
        epoch, positions = work
        made = torch.empty((len(positions), self.count, self.size, self.size, 3), dtype=torch.uint8)
        try:
            for row, position in zip(made, positions, strict=True):
                pixels = self.decode(self.listing.read(position), self.listing.path(position))
                for number in range(self.count):
                    row[number] = self.view(pixels, epoch, position, number)
        except UserError as error:
            return str(error)
        return made


def _cut(positions):
    """Slices of a part of a batch."""
    return [positions[start : start + SLICE] for start in range(0, len(positions), SLICE)]


def _central(size, pixels, *_):
    return centre_view(pixels, size)


def _drawn(augmentation, seed, size, pixels, *which):
    return augmentation.view(pixels, size, generator(seed, "view", *which))


class StreamSplit(Split):
    """A split of images in files: its `images` are `Pictures`, of which it has those at its `positions`."""

    chosen = ("labels", "positions")

    def batches(self, rank=0, ranks=1):
        size, positions = EVALUATION_BATCH.get(self.labels.device.type, 1024), self.positions.cpu().numpy()
        starts = range(rank * size, len(positions), ranks * size)
        batches = [_cut(positions[start : start + size]) for start in starts]
        slices, view = [(None, some) for batch in batches for some in batch], partial(_central, self.images.size)
        made = self.images.decoded(view, 1, slices)
        for start, batch in zip(starts, batches, strict=True):
            pixels = torch.cat([next(made)[:, 0] for _ in batch]).to(self.labels.device)
            yield self.normalised(pixels), self.labels[start : start + size]


class StreamFeed(Feed):
    """Augmented batches of a `StreamSplit`: `fetch` puts the views of the next batch into a tensor that never moves.

    pixels: uint8 [B, views, S, S, 3]; of a batch that several processes share, each has its own parts.
    """

    def __init__(self, split, views, seed, batch, group):
        """batch: of the specification, its size and statistics; group: the processes that share it."""
        self.batch_size, self.made = batch["size"], iter(())
        self.parts = partial(shared, statistics=batch["statistics"], rank=group.rank, ranks=group.size)
        super().__init__(split, views, seed)

    def to(self, device):
        super().to(device)
        shape = (self.batch_size, self.views["count"], self.images.size, self.images.size, 3)
        self.pixels = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        self.stream = None
        if self.device.type == "cuda":  # pinned here, as DataLoader's thread for it would disturb a capture
            self.host, self.staged = (
                torch.zeros(shape, dtype=torch.uint8, pin_memory=True),
                torch.zeros_like(self.pixels),
            )
            self.stream, self.copied = torch.cuda.Stream(self.device), torch.cuda.Event()

    def begin(self, epoch, position=0):
        super().begin(epoch, position)
        order = self.split.positions[self.plan["order"]].cpu().numpy()
        batches = (order[start : start + self.batch_size] for start in range(position, len(order), self.batch_size))
        slices = [
            (epoch, some)
            for batch in batches
            for part in self.parts(len(batch))
            for some in _cut(batch[part.offset : part.offset + part.size])
        ]
        view = partial(_drawn, self.augmentation, self.seed, self.images.size)
        self.made = self.images.decoded(view, self.views["count"], slices)

    def fetch(self, size):
        """Have the next `size` images, as far as they are this process's, in `pixels`.

        Raises DecodingFailed, naming the file, where one cannot be read.
        """
        if self.stream is None:
            return self._fill(self.pixels, size)
        self.copied.synchronize()  # of the batch before: from here on `host` is free
        self._fill(self.host, size)
        with torch.cuda.stream(self.stream):  # while the last step runs
            self.staged.copy_(self.host, non_blocking=True)
            self.copied.record()
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        self.pixels.copy_(self.staged)
        self.stream.wait_stream(current)

    def _fill(self, pixels, size):
        for part in self.parts(size):
            for start in range(part.offset, part.offset + part.size, SLICE):
                made = next(self.made)
                pixels[start : start + len(made)] = made

    def batch(self, size, offset=0):
        places = self.position + torch.arange(offset, offset + size, device=self.device)
        index = self.plan["order"].index_select(0, places)
        pixels = self.pixels[offset : offset + size]
        views = tuple(self.split.normalised(pixels[:, number]) for number in range(self.views["count"]))
        return self._labelled(views, index, places)

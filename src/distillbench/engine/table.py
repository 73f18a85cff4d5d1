"""Logit tables: made from a frozen network, and mapped into memory. store/tables.py says what is in the file."""

import hashlib
import os
import shutil
import time

import numpy as np
import torch

from distillbench.engine.feed import EVALUATION_BATCH
from distillbench.errors import UserError
from distillbench.files import naming
from distillbench.models.network import logits_alone
from distillbench.store.tables import HEADER_BYTES, ITEM_BYTES, as_bytes, aside, problem_of, rows_done, size_of


def write_table(path, network, split, augmentation, header, report=print, save_seconds=10.0):
    """Write a table, or go on where an earlier process stopped; the caller has claimed it.

    network: frozen, in evaluation mode, on the split's device in channels-last memory and fp32; split: `feed.Split` of
    the training images, in fp32; augmentation: as of `augment.augmentation_of`; header: as of `tables.header_of`, of
    which "shape" counts here; report: called with a line at most every `save_seconds`, in which no more work is lost.
    Raises UserError if the disk is too full, or the images are not as many as the header says.
    """
    images, views, classes = header["shape"]
    if images != len(split.labels):
        raise UserError(f"{path}: a table of {images} images is meant, there are {len(split.labels)}")
    part, total, row_bytes = aside(path), images * views, classes * ITEM_BYTES
    path.parent.mkdir(parents=True, exist_ok=True)
    done, reported = rows_done(path, header), time.monotonic()
    require_space(part, size_of(header["shape"]))
    with naming(path), open(part, "r+b" if done else "w+b") as file:
        file.seek(HEADER_BYTES + done * row_bytes)
        file.truncate()
        for start, logits in _rows(network, split, augmentation, views, done):
            file.seek(HEADER_BYTES + start * row_bytes)
            file.write(logits)
            if time.monotonic() - reported >= save_seconds:
                _note(file, {**header, "rows": start + len(logits)})
                report(f"{path}: {start + len(logits)} of {total} views")
                reported = time.monotonic()
        _note(file, {**header, "content": content_of(file)})
    os.replace(part, path)
    report(f"{path}: {total} views of {images} images, {size_of(header['shape']) / 1e6:.1f} MB")


@torch.inference_mode()
def _rows(network, split, augmentation, views, done):
    """Yield (first row, logits [n, C] as a contiguous array) in large batches from row `done` on, image by image.

    Where there are enough rows no batch is smaller, as another size may give other bits: the last one goes back a bit.
    """
    device, total = split.labels.device, len(split.labels) * views
    size = EVALUATION_BATCH.get(device.type, 1024)
    for start in range(done, total, size):
        start = max(0, min(start, total - size))
        rows = torch.arange(start, min(start + size, total), device=device)
        index, first = rows // views, start // views
        images = augmentation.prepared(split.images[first : int(index[-1]) + 1])
        chosen = augmentation.apply(images, index - first, augmentation.draws_of(rows % views))
        logits = logits_alone(network, split.normalised(chosen))
        yield start, np.ascontiguousarray(logits.cpu().numpy(), "<f4")


def _note(file, header):
    """Put a header before rows that are on the disk."""
    file.flush()
    os.fsync(file.fileno())
    file.seek(0)
    file.write(as_bytes(header))
    file.flush()
    os.fsync(file.fileno())


def content_of(file):
    """SHA-256 of the numbers in a table's open file."""
    file.seek(HEADER_BYTES)
    return hashlib.file_digest(file, "sha256").hexdigest()


def require_space(part, size):
    """Raises UserError unless the disk has room for a file of so many bytes, of which a part may be there."""
    needed = size - (part.stat().st_size if part.exists() else 0)
    if needed > (free := shutil.disk_usage(part.parent).free):
        raise UserError(f"{part.parent}: the table needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")


def read_table(path, header):
    """The logits of a table, [N, V, C] in fp32 on the CPU: mapped into memory, read where they are looked up.

    Raises UserError if the file, by its header and size, is not the one that is meant.
    """
    if problem := problem_of(path, header):
        raise UserError(f"{path}: {problem}")
    mapped = np.memmap(path, dtype="<f4", mode="c", offset=HEADER_BYTES, shape=tuple(header["shape"]))
    return torch.from_numpy(mapped)

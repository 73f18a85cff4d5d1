"""Datasets whose images stay in their files, too large for a device or for memory: lists of files instead of arrays.

The prepared file of such a dataset holds, in the place of images, the folder and the names of the files in it, with
their sizes in bytes, so that one that was cut or replaced since is noticed when it is read.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from distillbench.errors import UserError
from distillbench.files import sha256_of

FIELDS = tuple(f"{split}_{what}" for split in ("train", "test") for what in ("files", "sizes", "labels"))
FOLDER, STATED = "folder", "sha256"
THREADS, AT_ONCE = 16, 100  # that wait for a disk at the same time, and files that each takes


@dataclass(frozen=True)
class Listing:
    """The image files of a split, in its order: an image's position is its place in these arrays."""

    folder: str
    files: np.ndarray  # [N], bytes: names below the folder
    sizes: np.ndarray  # [N], int64, in bytes
    labels: np.ndarray  # [N], int64

    def __len__(self):
        return len(self.files)

    @classmethod
    def of(cls, folder, files, sizes, labels):
        """files: names as text."""
        names = np.array([os.fsencode(name) for name in files])
        return cls(folder, names, np.array(sizes, np.int64), np.array(labels, np.int64))

    def path(self, position):
        return Path(self.folder, os.fsdecode(self.files[position]))

    def read(self, position):
        """The content of an image's file. Raises UserError where it is missing, or is not as it was listed."""
        path = self.path(position)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); restore it and go on") from None
        if len(content) != self.sizes[position]:
            size = f"has {len(content)} bytes, {self.sizes[position]} when it was listed"
            raise UserError(f"{path}: {size}; restore it and go on, or prepare the data set again")
        return content


class Files(NamedTuple):
    """Both splits of a dataset, as lists of files; the counterpart of `data.Images`."""

    train_files: np.ndarray
    train_sizes: np.ndarray
    train_labels: np.ndarray
    test_files: np.ndarray
    test_sizes: np.ndarray
    test_labels: np.ndarray
    folder: str
    stated: str = ""  # digest of the lists
    source: dict = {}
    staged: str = ""  # a folder with copies of the files, which are read there

    @classmethod
    def of(cls, training, test, source):
        """training, test: `Listing`. Their digest is over names without folders: the same in every form of them."""
        arrays = [array for split in (training, test) for array in (split.files, split.sizes, split.labels)]
        digest = hashlib.sha256()
        for name, array in zip(FIELDS, arrays, strict=True):
            if array.dtype.kind == "S":
                array = np.array([file.rpartition(b"/")[2] for file in array.tolist()])
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array))
        return cls(*arrays, training.folder, digest.hexdigest(), source)

    @property
    def training(self):
        return Listing(self.staged or self.folder, self.train_files, self.train_sizes, self.train_labels)

    @property
    def test(self):
        return Listing(self.staged or self.folder, self.test_files, self.test_sizes, self.test_labels)

    @property
    def arrays(self):
        """{name: array}"""
        return {name: getattr(self, name) for name in FIELDS} | {FOLDER: np.array(os.fsencode(self.folder))}

    @property
    def digest(self):
        return self.stated

    @property
    def origin(self):
        """For the record of a run: the manifest of the files."""
        counts = {"num_train": len(self.train_labels), "num_test": len(self.test_labels)}
        return {**self.source, **counts, FOLDER: self.folder, STATED: self.digest}

    facts = origin


def files_digest(folder, names):
    """SHA-256 over names and contents of files below a folder, in the order of their names."""

    def lines_of(some):
        return [f"{_sha256_of(Path(folder, name))} {name}\n" for name in some]

    digest, names = hashlib.sha256(), sorted(names)
    parts = [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]
    with ThreadPoolExecutor(THREADS) as pool:
        for lines in tqdm(pool.map(lines_of, parts), "reading all files", len(parts), disable=None):
            digest.update("".join(lines).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _sha256_of(path):
    try:
        return sha256_of(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); get the file again") from None

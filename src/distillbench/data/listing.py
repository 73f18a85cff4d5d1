"""Datasets whose images stay in their files, too large for a device or for memory: lists of files instead of arrays.

The prepared file of such a dataset holds, in the place of images, the folder and the names of the files in it, with
their sizes in bytes, so that one that was cut or replaced since is noticed when it is read.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from distillbench.errors import UserError

FIELDS = tuple(f"{split}_{what}" for split in ("train", "test") for what in ("files", "sizes", "labels"))
FOLDER, STATED = "folder", "sha256"
THREADS = 16  # that wait for a disk at once


class Listing(NamedTuple):
    """The image files of a split, in its order: an image's position is its place in these arrays."""

    folder: str
    files: np.ndarray  # [N], bytes: names below the folder
    sizes: np.ndarray  # [N], int64, in bytes
    labels: np.ndarray  # [N], int64

    def __len__(self):
        return len(self.files)

    @classmethod
    def of(cls, folder, entries):
        """entries: (name, size, label) of each file."""
        files, sizes, labels = zip(*entries, strict=True)
        return cls(folder, np.array([os.fsencode(name) for name in files]), np.array(sizes), np.array(labels))

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

    @classmethod
    def of(cls, training, test, source):
        """training, test: `Listing`."""
        arrays = (*training[1:], *test[1:])
        digest = hashlib.sha256()
        for name, array in zip(FIELDS, arrays, strict=True):
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array))
        return cls(*arrays, training.folder, digest.hexdigest(), source)

    @property
    def training(self):
        return Listing(self.folder, self.train_files, self.train_sizes, self.train_labels)

    @property
    def test(self):
        return Listing(self.folder, self.test_files, self.test_sizes, self.test_labels)

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


def listed(folder, split, names):
    """[(name, size)] of the files below a folder. Raises UserError for one that is empty or cannot be looked at.

    split: for the progress; names: below the folder.
    """

    def size_of(name):
        path = Path(folder, name)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); get the data set again") from None
        if not size:
            raise UserError(f"{path}: is empty; get the file again")
        return name, size

    with ThreadPoolExecutor(THREADS) as pool:
        return list(tqdm(pool.map(size_of, names), f"listing {split}", len(names), disable=None))


def files_digest(folder, names):
    """SHA-256 over names and contents of files below a folder, in the order of their names."""

    def line_of(name):
        path = Path(folder, name)
        try:
            with open(path, "rb") as file:
                return f"{hashlib.file_digest(file, 'sha256').hexdigest()} {name}\n"
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); get the file again") from None

    digest = hashlib.sha256()
    with ThreadPoolExecutor(THREADS) as pool:
        for line in tqdm(pool.map(line_of, sorted(names)), "reading", len(names), disable=None):
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()

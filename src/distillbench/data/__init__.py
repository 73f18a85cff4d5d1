"""Datasets, one file each. A dataset's file declares what it is; one that can be loaded has `arrays()`, which makes
its images. Of the others the shapes are known, so that suites can be planned and networks built.

A prepared dataset is one file, results/data/NAME.npz, with train_images and test_images (uint8, [N, H, W, 3]),
train_labels and test_labels (int64, [N]), and sha256, their digest when the file was made. It is declared with the
dataset and compared on every read, with the sizes of the arrays: the images of another dataset or version, or of a file
that was cut, are never taken for those that a specification names. Nothing is compressed: every process maps the images
as they lie in the file, and none reads them whole to see whether a disk changed a bit.
"""

import hashlib
import io
import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distillbench.config import components
from distillbench.config.specification import PUBLISHED
from distillbench.errors import UserError, one_of
from distillbench.files import write_atomically

FIELDS, STATED = ("train_images", "train_labels", "test_images", "test_labels"), "sha256"


class Images(NamedTuple):
    """Both splits of a dataset, as numpy arrays. stated: their digest, as the file says that holds them."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    stated: str = ""

    @property
    def training(self):
        return self.train_images, self.train_labels

    @property
    def test(self):
        return self.test_images, self.test_labels

    @property
    def arrays(self):
        """{name: array}"""
        return {name: getattr(self, name) for name in FIELDS}

    @property
    def digest(self):
        return self.stated or digest_of(self.arrays)


def digest_of(arrays):
    """SHA-256 over names, types, shapes and contents of {name: array}."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def trained_on(labels, protocol):
    """Boolean [N]: which training images a run of a protocol trains on; the others are held out.

    labels: int64 [N]; protocol: of a specification. Of each class those images are held out whose SHA-256 of salt and
    position in the training set is smallest: at least one, and never all. Raises UserError for a class of one image.
    """
    chosen = np.ones(len(labels), dtype=bool)
    for label in np.unique(labels) if protocol != PUBLISHED else ():
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(f"protocol: class {label} has one training image, which cannot be held out")
        number = min(max(1, round(protocol["holdout"] * len(members))), len(members) - 1)
        chosen[sorted(members, key=lambda position: _hash(protocol["salt"], position))[:number]] = False
    return chosen


def _hash(salt, position):
    return hashlib.sha256(f"holdout {salt} {position}".encode()).digest()


def data_path(name, root="."):
    return Path(root) / "results" / "data" / f"{name}.npz"


def loader(name):
    """The function `arrays` of a dataset's file. Raises UserError where there is none yet."""
    found = {n: getattr(components.module("dataset", d), "arrays", None) for n, d in components.datasets().items()}
    if not found[name] or not components.datasets()[name]["sha256"]:
        valid = ", ".join(n for n, arrays in found.items() if arrays and components.datasets()[n]["sha256"])
        raise UserError(f"{name}: this version cannot load it yet; datasets that it can: {valid}")
    return found[name]


def prepare(name, path):
    """Make the dataset's file. Raises UserError if the images are not those with the declared digest."""
    dataset = components.datasets()[name]
    images = Images(*loader(name)())
    if images.digest != dataset["sha256"]:
        raise UserError(
            f"{name}: the images have the digest {images.digest[:12]}, declared is {dataset['sha256'][:12]};"
            " install the versions pinned in constraints.txt"
        )
    buffer = io.BytesIO()
    np.savez(buffer, **images.arrays, **{STATED: images.digest})
    write_atomically(path, buffer.getvalue())


def load(name, path):
    """Read a prepared dataset. Raises UserError if the file is absent, damaged or holds something else.

    What is written to the arrays stays in memory.
    """
    if name not in components.datasets():
        raise UserError(one_of(name, components.datasets(), "dataset"))
    loader(name)
    remedy, declared = f"make it with `distillbench data {name}`", components.datasets()[name]
    try:
        images = _read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged zip raises half a dozen types
        raise UserError(f"{path}: not a prepared dataset ({error}); remove it and {remedy}") from None
    if images.digest != declared["sha256"]:
        raise UserError(
            f"{path}: other images than {name} declares (digest {images.digest[:12]}); remove it and {remedy}"
        )
    return images


def _read(path):
    with np.load(path, allow_pickle=False) as archive:
        if STATED not in archive:  # as they were made before, compressed
            images = Images(*(archive[field] for field in FIELDS))
            return images._replace(stated=images.digest)
        arrays = (_mapped(path, archive.zip.getinfo(f"{field}.npy")) for field in FIELDS)
        images = Images(*arrays, stated=str(archive[STATED]))
    for pictures, labels in (images.training, images.test):
        if (pictures.dtype, pictures.shape[3:], labels.dtype) != (np.uint8, (3,), np.int64):
            raise ValueError("images or labels of another form")
        if pictures.shape[:1] != labels.shape:
            raise ValueError("not one label an image")
    return images


def _mapped(path, member):
    """The array of an uncompressed member of a zip file, as it lies there. Raises ValueError where it does not."""
    with open(path, "rb") as file:
        file.seek(member.header_offset + 26)
        start = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))  # behind the member's name
        file.seek(start)
        if member.compress_type or np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{member.filename} is not as it was written")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
        if by_columns or offset - start + dtype.itemsize * math.prod(shape) != member.file_size:
            raise ValueError(f"{member.filename} has another size than its header says")
        return np.require(np.memmap(file, dtype, "c", offset, shape), requirements="A")  # copies int64 in between

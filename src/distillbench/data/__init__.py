"""Datasets, one file each. A dataset's file declares what it is; one that can be loaded has `arrays()`, which makes
its images. Of the others the shapes are known, so that suites can be planned and networks built.

A prepared dataset is one file, results/data/NAME.npz, with train_images and test_images (uint8, [N, H, W, 3])
and train_labels and test_labels (int64, [N]). Its digest is declared with the dataset and compared on every
read, so that the numbers of a run can never come from other images than its specification names.
"""

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distillbench.config import components
from distillbench.errors import UserError, one_of
from distillbench.files import write_atomically

FIELDS = ("train_images", "train_labels", "test_images", "test_labels")


class Images(NamedTuple):
    """Both splits of a dataset, as numpy arrays."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def training(self):
        return self.train_images, self.train_labels

    @property
    def test(self):
        return self.test_images, self.test_labels

    @property
    def digest(self):
        digest = hashlib.sha256()
        for name, array in zip(FIELDS, self, strict=True):
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


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
    np.savez_compressed(buffer, **images._asdict())
    write_atomically(path, buffer.getvalue())


def load(name, path):
    """Read a prepared dataset. Raises UserError if the file is absent, damaged or holds something else."""
    if name not in components.datasets():
        raise UserError(one_of(name, components.datasets(), "dataset"))
    loader(name)
    remedy = f"make it with `distillbench data {name}`"
    try:
        with np.load(path, allow_pickle=False) as archive:
            images = Images(*(archive[field] for field in FIELDS))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged zip raises half a dozen types
        raise UserError(f"{path}: not a prepared dataset ({error}); remove it and {remedy}") from None
    if images.digest != components.datasets()[name]["sha256"]:
        raise UserError(
            f"{path}: other images than {name} declares (digest {images.digest[:12]}); remove it and {remedy}"
        )
    return images

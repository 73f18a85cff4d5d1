"""Datasets, one file each. A dataset's file declares what it is, and has `arrays`, which makes its images: of nothing,
or of a copy as it is `published`; or `files`, where images stay in the files of such a copy, and are read when a run
comes to them (`listing`).

A prepared dataset is one file, results/data/NAME.npz, with train_images and test_images (uint8, [N, H, W, 3]),
train_labels and test_labels (int64, [N]), sha256, their digest when the file was made, and `source`, what they were
made from. What tells a dataset from others is declared with it: the digest of its images or, of one that was published
as JPEG files and archives, of the bytes as published, as other libraries decode other pixels. It is verified when the
file is made and compared on every read, with the sizes of the arrays: the images of another dataset or version, or of
a file that was cut, are never taken for those that a specification names. Nothing is compressed: every process maps
the images as they lie in the file, and none reads them whole to see whether a disk changed a bit. Of images that stay
in their files it is these that the prepared file names, in the place of images.
"""

import hashlib
import json
import math
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distillbench.config import components
from distillbench.config.kinds import COUNTS, DIGESTS
from distillbench.config.specification import PUBLISHED
from distillbench.data import copies, listing
from distillbench.data.downloads import download
from distillbench.data.listing import Files
from distillbench.errors import UserError, one_of
from distillbench.files import writing

FIELDS, STATED, SOURCE = ("train_images", "train_labels", "test_images", "test_labels"), "sha256", "source"


class Images(NamedTuple):
    """Both splits of a dataset, as numpy arrays.

    stated: their digest, as the file says that holds them; source: what they were made from, likewise (see `prepare`).
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    stated: str = ""
    source: dict = {}

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

    @property
    def origin(self):
        """For the record of a run: their digest, which depends on what decoded them, and their source."""
        return {**self.source, STATED: self.digest}

    @property
    def facts(self):
        """What tells them from others: digests, and what can be counted."""
        sizes = {*self.train_images.shape[1:3], *self.test_images.shape[1:3]}
        counts = {"num_train": len(self.train_labels), "num_test": len(self.test_labels), "image_size": max(sizes)}
        return {**self.origin, **counts} if len(sizes) == 1 else {}


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


def prepare(name, path, found=None):
    """Make the dataset's file, of the published copy at `found`, or where it is looked for and else downloaded to.

    `source` in it: what tells the images from others besides their numbers (digests of the bytes as published, the
    dataset's version, the number of classes), and for information the `file` that they were read from and how far that
    was `verified`. Raises UserError, naming the file, if anything is missing, damaged or not as declared.
    """
    declared, module = components.datasets()[name], _module(name)
    if hasattr(module, "files"):
        where, remedy = found or _published(declared, module.published), "get the data set again"
        images = module.files(where, declared)
        print(f"{name}: {images.folder}, verified: {images.source['verified']}", flush=True)
    elif hasattr(module, "published"):
        copy = copies.verified_copy(declared, module.published, found or _published(declared, module.published))
        print(f"{name}: {copy.path}, verified: {copy.verified}", flush=True)
        images, where, remedy = images_of(copy, declared, module), copy.path, "get the data set again"
    elif found:
        raise UserError(f"--from: {name} is made of no files; leave it out")
    else:
        images, where, remedy = Images(*module.arrays()), name, "install the versions pinned in constraints.txt"
    if difference := _difference(images, declared):
        raise UserError(f"{where}: the images have {difference}; {remedy}")
    with writing(path) as file:
        np.savez(file, **images.arrays, **{STATED: images.digest, SOURCE: json.dumps(images.source)})


def images_of(copy, declared, module):
    """The `Images` of a published copy, as the dataset's module reads them."""
    *arrays, classes = module.arrays(copy)
    digests = {"md5": declared["md5"]} if declared["md5"] else {"files_sha256": copy.digest}
    source = {**digests, "version": declared["version"], "num_classes": len(classes)}
    images = Images(*arrays, source={**source, "file": copy.path.name, "verified": copy.verified})
    return images._replace(stated=images.digest)


def archive_of(name, found=None):
    """(path, MD5) of a dataset's archive that is here. Raises UserError where there is none, or a folder alone."""
    declared, published = components.datasets()[name], getattr(_module(name), "published", None)
    path = published and (found or copies.find(declared, published))
    if not path or not declared["md5"] or Path(path).is_dir():
        raise UserError(f"{path or name}: is no published archive, and only these are tracked; leave out --track")
    return path, declared["md5"]


def _published(declared, published):
    """Where the published copy lies, after a download if need be."""
    if path := copies.find(declared, published):
        return path
    if declared["files_sha256"] or not published.url:
        folder = declared["name"] if declared["files_sha256"] else published.folder
        places = f"a folder {folder} in one that {copies.VARIABLE} names or in {copies.FOLDER}/"
        raise UserError(f"{declared['name']}: is not here; put it into {places}, or add --from FOLDER")
    return download(published.url, declared["md5"], copies.place() / published.archive)


def _module(name):
    return components.module("dataset", components.datasets()[name])


def _difference(images, declared):
    """The first fact in which images are not as declared, in words; "" if they are."""
    told = [*COUNTS, *([] if isinstance(images, Files) else ["image_size"]), *DIGESTS]
    told += [] if declared["sha256"] else ["version", "num_classes"]
    for field in (field for field in told if declared[field] is not None):
        here = images.facts.get(field)
        if here != declared[field]:
            what = "digest" if field in ("sha256", "md5") else field
            return f"the {what} {str(here)[:12]}, declared is {str(declared[field])[:12]}"
    return ""


def load(name, path):
    """Read a prepared dataset: its `Images`, or `Files` where they stay in their files.

    What is written to the arrays stays in memory. Raises UserError if the file is absent, damaged or holds something
    else, or if the folder that it names is gone.
    """
    if name not in components.datasets():
        raise UserError(one_of(name, components.datasets(), "dataset"))
    remedy, declared = f"make it with `distillbench data {name}`", components.datasets()[name]
    try:
        images = _read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged zip raises half a dozen types
        raise UserError(f"{path}: not a prepared dataset ({error}); remove it and {remedy}") from None
    if difference := _difference(images, declared):
        raise UserError(f"{path}: other images than {name} declares ({difference}); remove it and {remedy}")
    if isinstance(images, Files) and not Path(images.folder).is_dir():
        what = f"no such folder, and {path} lists its files"
        raise UserError(f"{images.folder}: {what}; where they are now, `distillbench data {name} --from FOLDER`")
    return images


def _read(path):
    with np.load(path, allow_pickle=False) as archive:
        if listing.FOLDER in archive:
            return _read_files(path, archive)
        if STATED not in archive:  # as they were made before, compressed
            images = Images(*(archive[field] for field in FIELDS))
            return images._replace(stated=images.digest)
        arrays = (_mapped(path, archive.zip.getinfo(f"{field}.npy")) for field in FIELDS)
        source = json.loads(str(archive[SOURCE])) if SOURCE in archive else {}
        images = Images(*arrays, stated=str(archive[STATED]), source=source)
    if not isinstance(source, dict):
        raise ValueError("its source is no mapping")
    for pictures, labels in (images.training, images.test):
        if (pictures.dtype, pictures.shape[3:], labels.dtype) != (np.uint8, (3,), np.int64):
            raise ValueError("images or labels of another form")
        if pictures.shape[:1] != labels.shape:
            raise ValueError("not one label an image")
    return images


def _read_files(path, archive):
    arrays = [_mapped(path, archive.zip.getinfo(f"{field}.npy")) for field in listing.FIELDS]
    source, folder = json.loads(str(archive[SOURCE])), os.fsdecode(archive[listing.FOLDER].item())
    if not isinstance(source, dict) or any(array.ndim != 1 for array in arrays):
        raise ValueError("its lists are none, or its source is no mapping")
    for names, sizes, labels in (arrays[:3], arrays[3:]):
        if (names.dtype.kind, sizes.dtype, labels.dtype) != ("S", np.int64, np.int64):
            raise ValueError("names, sizes or labels of another form")
        if not len(names) == len(sizes) == len(labels):
            raise ValueError("not one size and label a file")
    return Files(*arrays, folder, stated=str(archive[STATED]), source=source)


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

"""Tiny-ImageNet: 110 000 images of 64x64 in 200 classes of ImageNet (Le, Yang 2015), 100 000 for training.

Constants and training transforms are mdistiller's (dataset/tiny_imagenet.py): a rotation, no crop. Classes are numbered
in the order of their names, images ordered by class and name, as in torchvision's ImageFolder.
"""

import re

import numpy as np
from tqdm import tqdm

from distillbench.data.copies import Published
from distillbench.data.jpeg import decode
from distillbench.errors import UserError

name = "tiny_imagenet"
version = 1
bibtex = """
@techreport{le2015tiny,
  title = {Tiny {ImageNet} Visual Recognition Challenge},
  author = {Le, Ya and Yang, Xuan},
  institution = {Stanford University, CS 231N},
  year = {2015}
}"""
md5 = "90528d7ca1a48142e341f4ef8d21d0de"  # of tiny-imagenet-200.zip
num_train = 100000
num_test = 10000
zoo = "tiny_imagenet"
num_classes = 200
image_size = 64
mean = (0.4802, 0.4481, 0.3975)
std = (0.2302, 0.2265, 0.2262)
augmentation = {"kind": "rotation_flip", "degrees": 20, "interpolation": "nearest", "flip": True}

published = Published(
    archive="tiny-imagenet-200.zip",
    folder="tiny-imagenet-200",
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    files={},
)
ANNOTATIONS = "val/val_annotations.txt"


def arrays(copy):
    """(train_images, train_labels, test_images, test_labels, classes) of a `copies.Copy`; its test set has no labels.

    Raises UserError, naming the file, for one that is missing, damaged, or has a wrong class or size.
    """
    labelled = {name: folder for name in copy.members if (folder := _class_of(copy, name))}
    classes, listed = sorted(set(labelled.values())), copy.read("wnids.txt").decode(errors="replace").split()
    if sorted(listed) != classes:
        wrong = min(set(listed).symmetric_difference(classes), default="a class twice")
        raise UserError(f"{copy.where('wnids.txt')}: lists other classes than train/ has folders ({wrong})")
    annotated = _annotated(copy, set(classes))
    splits = (_split(copy, names, classes, split) for split, names in (("train", labelled), ("val", annotated)))
    return *(array for split in splits for array in split), classes


def _class_of(copy, name):
    """The class in whose folder a training image lies, or None. Raises UserError for an image of another class."""
    found = re.fullmatch(r"train/([^/]+)/images/([^/]+)\.JPEG", name)
    if found and not found[2].startswith(f"{found[1]}_"):
        raise UserError(f"{copy.where(name)}: is named as an image of another class; get the data set again")
    return found and found[1]


def _annotated(copy, classes):
    """{name: class} of the validation images."""
    annotated, where = {}, copy.where(ANNOTATIONS)
    for number, line in enumerate(copy.read(ANNOTATIONS).decode(errors="replace").splitlines(), start=1):
        file, wnid = (*line.split("\t"), "")[:2]
        name = f"val/images/{file}"
        if wnid not in classes or name in annotated:
            raise UserError(f"{where}, line {number}: {line[:80]!r} names no class, or an image for the second time")
        annotated[name] = wnid
    for name in copy.members:
        if re.fullmatch(r"val/images/.*\.JPEG", name) and name not in annotated:
            raise UserError(f"{copy.where(name)}: has no line in {ANNOTATIONS}")
    return annotated


def _split(copy, labelled, classes, split):
    numbers = {wnid: number for number, wnid in enumerate(classes)}
    order = sorted(labelled, key=lambda name: (labelled[name], name))
    images = np.empty((len(order), image_size, image_size, 3), np.uint8)
    for image, name in zip(images, tqdm(order, f"decoding {split}", disable=None), strict=True):
        image[:] = _decoded(copy, name)
    return images, np.array([numbers[labelled[name]] for name in order], np.int64)


def _decoded(copy, name):
    """uint8 [H, W, 3]; a few are grey."""
    pixels = decode(copy.read(name), copy.where(name))
    if pixels.shape != (image_size, image_size, 3):
        height, width, _ = pixels.shape
        raise UserError(f"{copy.where(name)}: is {width}x{height}, expected {image_size}x{image_size}")
    return pixels

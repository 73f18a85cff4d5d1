"""The python archives of CIFAR: pickles of images in rows of 3072 bytes, 32x32 a channel, with lists of labels."""

import io
from typing import NamedTuple

import numpy as np

from distillbench.data.unpickle import read_arrays
from distillbench.errors import UserError

SIZE = 32


class Layout(NamedTuple):
    """train, test: names of files; labels: their field of labels; meta, classes: the file and field of class names."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: str
    meta: str
    classes: str


def arrays(copy, layout):
    """(train_images, train_labels, test_images, test_labels, classes) of a `copies.Copy`.

    Raises UserError, naming the file, for one that is missing, damaged or has a wrong label or size.
    """
    classes = _field(copy, layout.meta, _content(copy, layout.meta), layout.classes, list)
    splits = (_split(copy, names, layout.labels, len(classes)) for names in (layout.train, layout.test))
    return *(array for split in splits for array in split), classes


def _split(copy, names, field, num_classes):
    images, labels = zip(*(_batch(copy, name, field, num_classes) for name in names))
    pixels = np.concatenate(images).reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), np.concatenate(labels)


def _batch(copy, name, field, num_classes):
    content, where = _content(copy, name), copy.where(name)
    rows = _field(copy, name, content, "data", np.ndarray)
    if rows.dtype != np.uint8 or rows.shape[1:] != (3 * SIZE**2,):
        shape = "x".join(map(str, rows.shape))
        raise UserError(f"{where}: data is {rows.dtype} {shape}, expected uint8 with {3 * SIZE**2} a row")
    labels = _field(copy, name, content, field, list)
    if len(labels) != len(rows):
        raise UserError(f"{where}: {len(labels)} {field} for {len(rows)} images; get the file again")
    for image, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < num_classes:
            raise UserError(f"{where}: {field} of image {image} is {label!r}, expected 0 to {num_classes - 1}")
    return rows, np.array(labels, np.int64)


def _content(copy, name):
    return read_arrays(io.BytesIO(copy.read(name)), copy.where(name))


def _field(copy, name, content, field, kind):
    if not isinstance(content, dict) or not isinstance(content.get(field), kind):
        raise UserError(f"{copy.where(name)}: has no {kind.__name__} {field!r}; get the file again")
    return content[field]

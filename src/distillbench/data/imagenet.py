"""ImageNet: the images of ILSVRC2012 in 1 000 classes (Russakovsky et al. 2015), its validation images for testing.

Constants and training transforms are mdistiller's (dataset/imagenet.py). It is published as archives of JPEG files that
everybody unpacks, of which no digests are known: what is checked is names, numbers, labels, and a sample. Its images
stay in their files (`listing`).
"""

import hashlib
import io
import itertools
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import scipy.io
from tqdm import tqdm

from distillbench.data.copies import Published
from distillbench.data.jpeg import decode
from distillbench.data.listing import THREADS, Files, Listing, files_digest
from distillbench.errors import UserError

name = "imagenet"
version = 1
bibtex = """
@article{russakovsky2015imagenet,
  title = {{ImageNet} Large Scale Visual Recognition Challenge},
  author = {Russakovsky, Olga and Deng, Jia and Su, Hao and Krause, Jonathan and Satheesh, Sanjeev and Ma, Sean and
            Huang, Zhiheng and Karpathy, Andrej and Khosla, Aditya and Bernstein, Michael and Berg, Alexander C. and
            Fei-Fei, Li},
  journal = {International Journal of Computer Vision},
  volume = {115},
  number = {3},
  pages = {211--252},
  year = {2015}
}"""
num_train = 1281167
num_test = 50000
classes_sha256 = "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"  # of the 1 000 names, a line each
zoo = "imagenet"
num_classes = 1000
image_size = 224
mean = (0.485, 0.456, 0.406)
std = (0.229, 0.224, 0.225)
augmentation = {
    "kind": "resized_crop_flip",
    "scale": [0.08, 1.0],
    "ratio": [0.75, 1.3333333333333333],
    "interpolation": "bilinear",
    "flip": True,
}

published = Published(archive=None, folder="imagenet", url=None, files={})
# SHA-256 of the classes of the validation images, a line each, in the order of their numbers
VALIDATION = "313fc3f23c864dde9183c9a368809065765dd1b657a6904fded44e3e46d34604"
VALIDATION_NAME = "ILSVRC2012_val_{:08d}"
IMAGE = re.compile(r".+\.(jpe?g|png)", re.IGNORECASE)
SAMPLE = 1000  # images of a split that are decoded, evenly spread
DEVKIT = ("ILSVRC2012_devkit_t12/data", "devkit/data", "data")
IDS, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
SYNSETS = "imagenet_2012_validation_synset_labels.txt"
SOLUTION, NUMBERS = "LOC_val_solution.csv", "val.txt"


def files(folder, declared):
    """The `Files` in a folder with train/CLASS/*.JPEG and val/CLASS/*.JPEG, or all in val/ with labels in a file.

    Classes are numbered in the order of their names, images ordered by class and name, as in torchvision's ImageFolder,
    in whatever form val/ is. declared: with `classes_sha256` it has to be the published set; else classes are what
    is found, and `files_sha256` is over all files. Raises UserError, naming it, for the first file or class that is not
    right.
    """
    root = Path(folder, published.folder)
    root = root if root.is_dir() else Path(folder)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name the one that has train/ and val/")
    classes = _class_folders(root / "train")
    _require_classes(root / "train", classes, declared)
    numbers, train = {name: number for number, name in enumerate(classes)}, _in_class_folders(root, "train", classes)
    labelled, test = (), _in_class_folders(root, "val", _class_folders(root / "val"))
    if not test:
        labelled, test = _flat(root, classes)
        test.sort(key=lambda entry: (entry[2], entry[0]))
    _require_same_classes(root, classes, test)
    if declared["classes_sha256"]:
        _require_published(root, train, test, declared)
    splits = []
    for entries in (train, test):
        names, sizes, wnids = zip(*entries, strict=True)
        splits.append(Listing.of(os.path.abspath(root), names, sizes, [numbers[wnid] for wnid in wnids]))
    decoded = sum(_decode_some(split) for split in splits)
    if declared["classes_sha256"]:
        digests = {"classes_sha256": classes_digest(classes)}
        verified = f"classes, counts, labels of val, {decoded} files decoded"
    else:
        digests = {"files_sha256": files_digest(root, [name for name, *_ in (*train, *test)] + list(labelled))}
        verified = "every file"
    source = {**digests, "version": declared["version"], "num_classes": len(classes), "verified": verified}
    return Files.of(*splits, {**source, "file": root.name})


def classes_digest(classes):
    """SHA-256 of the names of classes, a line each, in their order."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(classes)).encode()).hexdigest()


def _class_folders(folder):
    """Sorted names of the folders in a folder."""
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith("."))


def _entries(folder):
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror}); expected train/ and val/ beside each other"
        ) from None


def _images(folder):
    """[(name, bytes)] of the image files in a folder, sorted. Raises UserError for one that is empty."""
    found = sorted((entry.name, _size(entry)) for entry in _entries(folder) if IMAGE.fullmatch(entry.name))
    for name, size in found:
        if not size:
            raise UserError(f"{Path(folder, name)}: is empty; get the file again")
    return found


def _size(entry):
    try:
        return entry.stat().st_size
    except OSError as error:  # of a broken link, for one
        raise UserError(f"{entry.path}: cannot be read ({error.strerror}); get the file again") from None


def _in_class_folders(root, split, classes):
    """[(name below root, bytes, class)] of the images of a split. Raises UserError for a class without images."""
    with ThreadPoolExecutor(THREADS) as pool:
        folders = [root / split / name for name in classes]
        found = list(tqdm(pool.map(_images, folders), f"listing {split}", len(folders), disable=None))
    for name, images in zip(classes, found, strict=True):
        if not images:
            raise UserError(f"{root / split / name}: has no images; get the class again")
    folders = zip(classes, found, strict=True)
    return [(f"{split}/{wnid}/{image}", size, wnid) for wnid, images in folders for image, size in images]


def _require_classes(folder, classes, declared):
    """Raise UserError unless there are classes and, of the published set, those that it has."""
    if not classes:
        raise UserError(f"{folder}: has no class folders; expected train/CLASS/*.JPEG")
    if declared["classes_sha256"] and len(classes) > declared["num_classes"]:
        raise UserError(
            f"{folder}: {len(classes)} class folders, expected {declared['num_classes']}; remove the others"
        )


def _require_same_classes(root, classes, test):
    """Raise UserError, naming the folder or image, where a class is in one split alone."""
    there = {wnid: name for name, _, wnid in reversed(test)}
    for wnid in sorted(there.keys() - set(classes)):
        raise UserError(f"{root / 'train' / wnid}: is missing, and {there[wnid]} is of this class; get the class again")
    for wnid in classes:
        if wnid not in there:
            raise UserError(f"{root / 'val'}: has no image of class {wnid}, which train/ has; get it again")


def _require_published(root, train, test, declared):
    """Raise UserError unless classes, numbers of images and labels are the published ones."""
    classes = {wnid for *_, wnid in train}
    if classes_digest(classes) != declared["classes_sha256"]:
        raise UserError(f"{root / 'train'}: {len(classes)} classes, and not those of ImageNet; get the data set again")
    for name, _, wnid in train:
        if not name.rpartition("/")[2].startswith(f"{wnid}_"):
            raise UserError(f"{root / name}: is named as an image of another class; get the class again")
    for split, entries, expected in (("train", train, declared["num_train"]), ("val", test, declared["num_test"])):
        if len(entries) != expected:
            counts = Counter(wnid for *_, wnid in entries)
            fewest = min(classes, key=lambda wnid: (counts[wnid], wnid))
            what = f"{len(entries)} images, {expected} are published; fewest, {counts[fewest]}, are of class {fewest}"
            raise UserError(f"{root / split}: {what}; get what is missing again")
    labels = {Path(name).stem: wnid for name, _, wnid in test}
    names = [VALIDATION_NAME.format(number + 1) for number in range(len(test))]
    for name in names:
        if name not in labels:
            raise UserError(f"{root / 'val'}: {name}.JPEG is missing, and another image in its place; get it again")
    if hashlib.sha256("".join(f"{labels[name]}\n" for name in names).encode()).hexdigest() != VALIDATION:
        raise UserError(f"{root / 'val'}: the labels are not the published ones; get val/ and its labels again")


def _decode_some(split):
    """Decode an even sample of a split; how many these are. Raises UserError for one that cannot be."""
    sample = range(0, len(split), max(1, len(split) // SAMPLE))
    for position in tqdm(sample, "decoding a sample", disable=None):
        decode(split.read(position), split.path(position))
    return len(sample)


# The labels of a flat val/


def _flat(root, classes):
    """([names of the files with labels], [(name below root, bytes, class)]) of a val/ without class folders."""
    images = {}
    for name, size in _images(root / "val"):
        other, _ = images.setdefault(Path(name).stem, (name, size))
        if other != name:
            raise UserError(f"{root / 'val' / name}: has the name of {other}, too, and labels are by name; remove one")
    if not images:
        raise UserError(f"{root / 'val'}: has no images; expected val/CLASS/*.JPEG, or val/*.JPEG with labels in {IDS}")
    for place, (name, read) in itertools.product(("", *DEVKIT), READERS.items()):
        if (root / place / name).is_file():
            used, labels = read(root / place / name, classes)
            break
    else:
        raise UserError(f"{root / 'val'}: has images and no labels; put {', '.join(READERS)} or its devkit into {root}")
    for stem, (name, _) in images.items():
        if stem not in labels:
            raise UserError(f"{root / 'val' / name}: has no label in {used[0]}; remove it, or get the labels again")
    for stem in sorted(labels.keys() - images.keys()):
        raise UserError(f"{root / 'val' / stem}.JPEG: is missing, and has a label in {used[0]}; get it again")
    entries = [(f"val/{name}", size, labels[stem]) for stem, (name, size) in images.items()]
    return [path.relative_to(root).as_posix() for path in used], entries


def _by_number(labels):
    return {VALIDATION_NAME.format(number): label for number, label in enumerate(labels, start=1)}


def _ids(path, classes):
    """The devkit's: a line an image, with a number that meta.mat explains. It isn't the order of names."""
    meta = path.with_name(META)
    try:
        synsets = scipy.io.loadmat(io.BytesIO(_content(meta)), squeeze_me=True)["synsets"]
        wnids = {str(int(synset["ILSVRC2012_ID"])): str(synset["WNID"]) for synset in synsets}
    except UserError:
        raise
    except Exception as error:  # a damaged file raises a dozen types
        raise UserError(f"{meta}: not the devkit's ({error}); get the devkit again") from None
    return (path, meta), _by_number(_classes(path, _lines(path), wnids))


def _synsets(path, classes):
    """A line an image, with the class."""
    return (path,), _by_number(_classes(path, _lines(path), dict(zip(classes, classes))))


def _solution(path, classes):
    """Kaggle's: `ImageId,CLASS x y x y ...`, under a heading."""
    rows = [line.replace(",", " ").split() for line in _lines(path)[1:]]
    return (path,), _pairs(path, rows, dict(zip(classes, classes)))


def _numbers(path, classes):
    """Caffe's: `NAME.JPEG NUMBER`, of the class in the order of names, from 0 on."""
    return (path,), _pairs(path, map(str.split, _lines(path)), {str(n): name for n, name in enumerate(classes)})


READERS = {IDS: _ids, SYNSETS: _synsets, SOLUTION: _solution, NUMBERS: _numbers}


def _pairs(path, rows, classes):
    rows = [(*row, "", "")[:2] for row in rows]
    wnids = _classes(path, [label for _, label in rows], classes)
    return {Path(name).stem: wnid for (name, _), wnid in zip(rows, wnids, strict=True)}


def _classes(path, labels, classes):
    """The classes that labels stand for, also of WordNet's names that are no class here.

    Raises UserError, naming the label, for one that stands for none.
    """
    for number, label in enumerate(labels, start=1):
        if label not in classes and not re.fullmatch(r"n\d{8}", label):
            raise UserError(f"{path}: label {number}, {label[:40]!r}, stands for no class; get the file again")
    return [classes.get(label, label) for label in labels]


def _lines(path):
    return [line.strip() for line in _content(path).decode(errors="replace").splitlines()]


def _content(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); get the devkit again") from None

"""Small generated data sets in the formats in which the real ones are published, under their names."""

import hashlib
import io
import pickle
import shutil
import tarfile
from importlib import import_module
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from distillbench.config import components

CLASSES = ["n03", "n01", "n02"]  # of the Tiny-ImageNet format, whose order is that of their names


def write_cifar(folder, like="cifar100", seed=0, per_file=6, **changes):
    """The files of a CIFAR folder; changes: {file: {field: value}}. Pickled as by Python 2."""
    layout, draws = import_module(f"distillbench.data.{like}").layout, np.random.default_rng(seed)
    classes = [f"class {i}" for i in range(3)]
    contents = {layout.meta: {layout.classes: classes}}
    for name in (*layout.train, *layout.test):
        images = draws.integers(0, 256, (per_file, 3072), dtype=np.uint8)
        contents[name] = {"data": images, layout.labels: [i % 3 for i in range(per_file)]}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(pickled({**content, **changes.get(name, {})}))
    return folder


def pickled(content):
    return pickle.dumps(content, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def jpeg(pixels, mode="RGB"):
    """The bytes of a JPEG file of an array."""
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, "JPEG", quality=95)
    return content.getvalue()


def write_tiny(folder, seed=0, size=64):
    """The files of a Tiny-ImageNet folder: two training images and one for validation of each of three classes."""
    draws = np.random.default_rng(seed)

    def image():
        coarse = draws.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return jpeg(coarse.repeat(size // 4, axis=0).repeat(size // 4, axis=1))

    for wnid in CLASSES:
        (folder / "train" / wnid / "images").mkdir(parents=True)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
        for number in (0, 10):
            (folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG").write_bytes(image())
    (folder / "val/images").mkdir(parents=True)
    for number, _ in enumerate(CLASSES):
        (folder / f"val/images/val_{number}.JPEG").write_bytes(image())
    lines = (f"val_{number}.JPEG\t{wnid}\t0\t0\t62\t62\n" for number, wnid in enumerate(CLASSES))
    (folder / "val/val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(CLASSES))
    return folder


WNIDS = ["n00000003", "n00000001", "n00000002"]  # of the ImageNet format, as its devkit numbers them from 1 on


def write_imagenet(folder, seed=0, per_class=4, labels="folders"):
    """The files of an ImageNet folder: `per_class` training images and two for validation of each of three classes.

    labels: how those for validation are labelled: "folders", or the name of the file with the labels of a flat val/.
    """
    draws = np.random.default_rng(seed)

    def write(path):
        height, width = draws.integers(40, 60, 2)
        coarse = draws.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        path.write_bytes(jpeg(np.asarray(picture)))

    for wnid in WNIDS:
        for number in range(per_class):
            write(folder / "train" / wnid / f"{wnid}_{number}.JPEG")
    for number, wnid in enumerate(2 * WNIDS, start=1):
        write(folder / "val" / (wnid if labels == "folders" else "") / f"ILSVRC2012_val_{number:08d}.JPEG")
    if labels != "folders":
        write_labels(folder, labels)
    return folder


def write_labels(folder, name):
    """A file with the labels of `write_imagenet`'s validation images, in the place and form that its name has."""
    images = [(f"ILSVRC2012_val_{number:08d}", wnid) for number, wnid in enumerate(2 * WNIDS, start=1)]
    forms = {
        "ILSVRC2012_validation_ground_truth.txt": [str(WNIDS.index(wnid) + 1) for _, wnid in images],
        "imagenet_2012_validation_synset_labels.txt": [wnid for _, wnid in images],
        "LOC_val_solution.csv": ["ImageId,PredictionString", *(f"{image},{wnid} 1 2 3 4 " for image, wnid in images)],
        "val.txt": [f"{image}.JPEG {sorted(WNIDS).index(wnid)}" for image, wnid in images],
    }
    place = folder / "ILSVRC2012_devkit_t12/data" if "ground_truth" in name else folder
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_text("\n".join(forms[name]) + "\n")
    if place != folder:
        synsets = [(number, wnid, 0) for number, wnid in enumerate(WNIDS, start=1)] + [(4, "n00000000", 3)]
        fields = [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)]
        scipy.io.savemat(place / "meta.mat", {"synsets": np.array(synsets, fields)})


def publish_imagenet(folder, monkeypatch, **options):
    """`write_imagenet` in the place of the real one: declared as if that were so. Returns the folder."""
    module, declared = import_module("distillbench.data.imagenet"), components.datasets()["imagenet"]
    write_imagenet(Path(folder), **options)
    lines = ["".join(f"{wnid}\n" for wnid in wnids).encode() for wnids in (sorted(WNIDS), 2 * WNIDS)]
    classes, validation = (hashlib.sha256(text).hexdigest() for text in lines)
    facts = {"num_train": 3 * options.get("per_class", 4), "num_test": 6, "num_classes": 3, "classes_sha256": classes}
    monkeypatch.setattr(module, "VALIDATION", validation)
    monkeypatch.setitem(components.datasets(), "imagenet", {**declared, **facts})
    return Path(folder)


def publish(name, root, monkeypatch):
    """A small data set in the place of the one that is published as `name`: its archive and folder below `root`.

    Its digests are declared as if they were the published ones. Returns (archive, folder).
    """
    module, declared = import_module(f"distillbench.data.{name}"), components.datasets()[name]
    folder = Path(root) / module.published.folder
    write_tiny(folder) if name == "tiny_imagenet" else write_cifar(folder, name)
    archive = Path(root) / module.published.archive
    if archive.suffix == ".zip":
        shutil.make_archive(str(archive.with_suffix("")), "zip", root, folder.name)
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder, folder.name)
    counts = (6, 3) if name == "tiny_imagenet" else (6 * len(module.layout.train), 6)
    facts = {"md5": md5(archive), "num_train": counts[0], "num_test": counts[1], "num_classes": 3}
    files = {file: md5(folder / file) for file in module.published.files}
    monkeypatch.setattr(module, "published", module.published._replace(files=files))
    monkeypatch.setitem(components.datasets(), name, {**declared, **facts})
    return archive, folder


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()

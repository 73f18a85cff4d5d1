"""Small generated data sets in the formats in which the real ones are published, under their names."""

import hashlib
import io
import pickle
import shutil
import tarfile
from importlib import import_module
from pathlib import Path

import numpy as np
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

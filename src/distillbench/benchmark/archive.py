"""CIFAR-100's python archive, unpacked: the published one, or generated images in its layout."""

import hashlib
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distillbench.benchmark.plain import Images
from distillbench.errors import UserError

FOLDER, CLASSES = "cifar-100-python", 100
TEST_SHARE = 5  # a test image for so many of training


class Archive(NamedTuple):
    """root: the folder in which torchvision finds it; md5: {file: MD5} of a generated one, None of the published."""

    root: str
    md5: dict | None = None

    def declare(self, dataset):
        """Have a class of torchvision's CIFAR-100 expect these files: it compares their MD5 with declared ones."""
        if self.md5:
            dataset.train_list, dataset.test_list = ([[name, self.md5[name]]] for name in ("train", "test"))
            dataset.meta = {**dataset.meta, "md5": self.md5["meta"]}

    def arrays(self):
        """Training images uint8 [N, 32, 32, 3] and labels int64 [N]. Raises UserError where they are not there."""
        self.declare(Images)
        try:
            images = Images(self.root)
        except (RuntimeError, OSError):
            remedy = f"give the folder that holds {FOLDER}, unpacked from the published archive"
            raise UserError(f"{self.root}: holds no whole CIFAR-100; {remedy}") from None
        return images.data, np.array(images.targets)


def generate(root, num_images):
    """Write random images and labels, the same on each call, into a folder; the `Archive`."""
    folder, random = Path(root, FOLDER), np.random.default_rng(0)
    folder.mkdir(parents=True)
    contents = {"meta": {"fine_label_names": [f"class {number}" for number in range(CLASSES)]}}
    for split, count in (("train", num_images), ("test", num_images // TEST_SHARE)):
        pixels = random.integers(256, size=(count, 3 * 32 * 32), dtype=np.uint8)
        contents[split] = {"data": pixels, "fine_labels": random.integers(CLASSES, size=count).tolist()}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    return Archive(str(root), {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in contents})

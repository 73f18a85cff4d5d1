"""What an image of ImageNet costs on its way from its file into a batch: by torchvision's loader on Pillow, by ours.

Both run in one thread on the same files, and what is counted is the time of the processor: images a second and core,
whatever else the machine does. Ours is timed only if its images are those of the published loader.
"""

import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import Compose, RandomHorizontalFlip, RandomResizedCrop, ToTensor

from distillbench.benchmark.measuring import Measured, in_rounds
from distillbench.config import components
from distillbench.data.augment import augmentation_of
from distillbench.data.jpeg import decode
from distillbench.engine.streams import generator, stream_seed
from distillbench.errors import UserError

PUBLISHED, AGAIN, DECODED, OURS = "Pillow and torchvision", "the same again", "ours, decoding alone", "ours"
ENDINGS = (".jpeg", ".jpg", ".png")
WIDTH, HEIGHT, GENERATED = 500, 375, 32
QUALITY, ROUGHNESS = 95, 0.25  # so that a generated file has as many bytes as one of ImageNet, 130 kB
LEVELS = 2  # of 255, by which a pixel may differ from the published loader's


class Loaded(NamedTuple):
    """The ways on the same files. measured: [`Measured`] with names for rungs; files: what they are, for people."""

    measured: list
    files: dict


def bench_loading(folder=None, images=200, rounds=6, report=print):
    """The `Loaded` of files.

    folder: whose files are taken, some `images` of all below it, evenly spread; None for generated ones. report: called
    with a line at every turn of the work. Raises UserError for a folder without images, and for a damaged one.
    """
    with TemporaryDirectory(prefix="distillbench-") as generated, _one_thread():
        paths, ways = _some_below(folder, images) if folder else _generate(Path(generated)), Ways()
        report(f"gate: {len(paths)} files")
        differing = [path for number, path in enumerate(paths) if not ways.agree(path, number)]
        reasons = {OURS: f"{differing[0]}: other pixels than the published loader's"} if differing else {}
        timed = {name: way for name, way in ways.all.items() if name not in reasons}
        rates = {name: [] for name in ways.all}
        for number, names in enumerate(in_rounds([*timed], rounds), start=1):
            report(f"round {number} of {rounds}")
            for name in names:
                rates[name].append(_rate(timed[name], paths, number))
        measured = [Measured(name, tuple(rates[name]), reasons.get(name, "")) for name in ways.all]
        return Loaded(measured, {"from": str(folder or "generated"), **_facts(paths)})


class Ways:
    """all: {name: what makes of a path and a number, of which the draws are a function, what a batch takes}"""

    def __init__(self):
        declared = components.datasets()["imagenet"]
        self.size, kind = declared["image_size"], declared["augmentation"]
        self.augmentation = augmentation_of(kind)
        crop, flip = RandomResizedCrop(self.size, kind["scale"], kind["ratio"]), RandomHorizontalFlip(kind["flip"] / 2)
        self.transform = Compose([crop, flip, ToTensor()])
        self.all = {PUBLISHED: self.published, AGAIN: self.published, DECODED: self.decoded, OURS: self.ours}

    def published(self, path, _number):
        return self.transform(pil_loader(path))

    def decoded(self, path, _number):
        return decode(path.read_bytes(), path)

    def ours(self, path, number):
        return self.augmentation.view(self.decoded(path, number), self.size, generator(0, "augmentation", number))

    def agree(self, path, number):
        """Whether both make the same of the same draws, but for rounding. Raises UserError for a damaged file."""
        found = self.ours(path, number).permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(0, "augmentation", number))
            expected = self.published(path, number)
        return bool((found - 255 * expected).abs().max() < LEVELS + 0.5)


def _rate(way, paths, round_number):
    start = time.process_time()
    for number, path in enumerate(paths):
        way(path, round_number * len(paths) + number)
    return len(paths) / (time.process_time() - start)


@contextmanager
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _some_below(folder, images):
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not paths:
        raise UserError(f"--from: {folder}: holds no images ({', '.join(ENDINGS)}); name a folder of ImageNet")
    count = min(images, len(paths))
    return [paths[number * len(paths) // count] for number in range(count)]


def _generate(folder):
    """Paths of JPEG files of noise of all sizes, the same on each call."""
    paths = [folder / f"{number}.JPEG" for number in range(GENERATED)]
    for number, path in enumerate(paths):
        draws, picture = np.random.default_rng(number), np.zeros((HEIGHT, WIDTH, 3))
        for scale in (1, 2, 4, 8, 16, 32, 64, 128):
            grid = draws.integers(0, 256, (HEIGHT // scale + 2, WIDTH // scale + 2, 3), dtype=np.uint8)
            grown = Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            picture += scale**ROUGHNESS * (np.asarray(grown) - 127.5)
        picture = 120 + 60 * picture / picture.std()
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=QUALITY)
    return paths


def _facts(paths):
    width, height = np.median([Image.open(path).size for path in paths], axis=0).astype(int).tolist()
    size = round(sum(path.stat().st_size for path in paths) / len(paths) / 1000)
    return {"count": len(paths), "width": width, "height": height, "kB": size}

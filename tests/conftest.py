"""What several test files use: small specifications and the demo's images."""

import pytest
import torch

from distillbench.config.resolve import flatten, resolve
from distillbench.config.specification import build_specification
from distillbench.data import Images, digits
from distillbench.engine.feed import Feed, Split

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def images():
    """The digits, as the specifications name them."""
    return Images(*digits.arrays())


def specification_of(seed=0, teacher=None, **keys):
    """The specification of two short epochs with configuration keys, whose dots may be written __."""
    base = {"DATASET.TYPE": "digits", "DISTILLER.STUDENT": "resnet8", "DISTILLER.TYPE": "NONE"}
    base |= {"SOLVER.EPOCHS": 2, "SOLVER.BATCH_SIZE": 128, "SOLVER.LR_DECAY_STAGES": [1]}
    written = flatten({**base, **{name.replace("__", "."): value for name, value in keys.items()}}, "test")
    config, transforms, _ = resolve((), written)
    return build_specification(config, transforms=transforms, teacher=teacher, seed=seed)


@pytest.fixture(scope="session")
def specify():
    return specification_of


def feed_of(specification, images):
    """The batches that a run has."""
    split = Split.put(*images.training, specification, "cpu")
    return Feed(split, specification["views"], specification["seed"])

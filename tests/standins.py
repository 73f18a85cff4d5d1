"""What stands in for the real thing in several test files: a teacher that never was, short runs, generated images."""

from pathlib import Path

import numpy as np
import torch

from distillbench.config import components
from distillbench.config.resolve import flatten, resolve
from distillbench.config.specification import PUBLISHED, build_specification
from distillbench.engine.feed import Feed, Split, generated_feed
from distillbench.engine.learner import Learner
from distillbench.engine.run import train
from distillbench.tasks.classification.predictions import Predictions
from distillbench.tasks.classification.stored import ranked

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
OWN = FIXTURES / "own_method.py"  # features, an own module, two views, a schedule
DIGITS = components.datasets()["digits"]
TEACHER = {"kind": "run", "id": "digits/resnet8/none/s0-000000000000", "checkpoint": "last"}

DRAWS = np.random.default_rng(0)
LOGITS, TEACHER_LOGITS = DRAWS.normal(0, 2, (400, 10)), DRAWS.normal(0, 3, (400, 10))
TARGETS = DRAWS.integers(0, 10, 400)


def specification_of(seed=0, teacher=None, protocol=PUBLISHED, **keys):
    """The specification of two short epochs with configuration keys, whose dots may be written __."""
    base = {"DATASET.TYPE": "digits", "DISTILLER.STUDENT": "resnet8"}
    base |= {"SOLVER.EPOCHS": 2, "SOLVER.BATCH_SIZE": 128, "SOLVER.LR_DECAY_STAGES": [1]}
    row = {"DISTILLER.TYPE": "NONE", **{name.replace("__", "."): value for name, value in keys.items()}}
    config, transforms, _ = resolve((flatten(base, "base"),), flatten(row, "test"))
    return build_specification(config, transforms=transforms, teacher=teacher, seed=seed, protocol=protocol)


def feed_of(specification, images):
    """The batches that a run has."""
    split = Split.put(*images.training, specification, "cpu")
    return Feed(split, specification["views"], specification["seed"])


def learner_of(specification, num_images, teacher=None):
    """A learner on generated images."""
    return Learner(specification, generated_feed(specification, num_images), teacher)


def quiet(_line):
    pass


def learn(specification, images, tmp_path, **options):
    """Train a run; returns its directory."""
    out = tmp_path / "out"
    train(specification, images, out, tmp_path / "work", tmp_path, device="cpu", report=quiet, **options)
    return out


def with_ranks(logits, targets=TARGETS):
    """Predictions as they are stored, the logits in half precision."""
    ranks = {name: tensor.numpy() for name, tensor in ranked(torch.tensor(logits), torch.tensor(targets)).items()}
    return Predictions(targets, {**ranks, "logits": logits.astype(np.float16)}, precision="fp64")

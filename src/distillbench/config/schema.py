"""Every configuration key that a run understands: one union of mdistiller's and GKD's, and this project's own.

Published keys keep their spelling. Keys of methods, of trainers and of the gradient scaling are declared in
their own files and only collected here.
"""

from functools import cache

from distillbench.config import components
from distillbench.config.keys import Key

SCHEMA = 1  # number of the specification format; the defaults below are frozen with it

ALIAS, ALIASED = "GradientKD", "KD"  # the GKD repository's name for KD with GKD

_WORK = "how the work is done, not what is computed"
_NAME = "a name does not change numbers"
_DATA = "another {} is another experiment"


@cache
def base_keys():
    """{dotted key: Key} of the keys that every run reads."""
    return {
        "DEFAULTS": Key(
            "mdistiller",
            "whose defaults fill the keys that are not given",
            choices=("mdistiller", "gkd"),
            identity=False,
            why="only the values that it selects count, and these are in the specification",
        ),
        "DATASET.TYPE": Key(
            "cifar100",
            "the dataset; in a params file `dataset:` sets it",
            why=_DATA.format("dataset"),
        ),
        "DATASET.NUM_WORKERS": Key(
            8, "published key, without effect: the images are resident", minimum=0, identity=False, why=_WORK
        ),
        "DATASET.TEST.BATCH_SIZE": Key(
            64,
            "published key, without effect: the test batch changes no metric",
            minimum=1,
            identity=False,
            why=_WORK,
        ),
        "DATASET.NUM_NONTARGET": Key(
            5, "published key of GKD's gradient log, without effect", minimum=0, identity=False, why=_WORK
        ),
        "DISTILLER.TYPE": Key(
            "NONE",
            "the method; NONE trains on the labels alone, GradientKD is read as KD with GKD",
            choices=(*components.methods(), ALIAS),
            why="the method is what is compared",
        ),
        "DISTILLER.TEACHER": Key(
            "ResNet50",
            "the teacher's network; in a params file `pairs:` sets it",
            why=_DATA.format("teacher"),
        ),
        "DISTILLER.STUDENT": Key(
            "resnet32",
            "the network that is trained; in a params file `pairs:` sets it",
            why=_DATA.format("network"),
        ),
        "SOLVER.TRAINER": Key(
            "base",
            "how the losses become an update",
            choices=tuple(components.trainers()),
            why="another update is another experiment",
        ),
        "SOLVER.TYPE": Key("SGD", "the optimizer", choices=("SGD",), why="another optimizer is another experiment"),
        "SOLVER.BATCH_SIZE": Key(
            64,
            "images per update, over all devices",
            minimum=1,
            why="it changes the noise and the number of updates",
        ),
        "SOLVER.EPOCHS": Key(240, "passes over the training images", minimum=1, why="the length of the schedule"),
        "SOLVER.LR": Key(0.05, "learning rate before the first decay", above=0, why="it changes every update"),
        "SOLVER.LR_DECAY_STAGES": Key(
            [150, 180, 210],
            "epochs after which the rate decays (150: from epoch 151 on)",
            minimum=1,
            why="the rate of every later epoch",
        ),
        "SOLVER.LR_DECAY_RATE": Key(0.1, "factor of a decay", above=0, maximum=1, why="the rate of every later epoch"),
        "SOLVER.WEIGHT_DECAY": Key(
            1e-4, "L2 coefficient, on every parameter", minimum=0, why="it changes every update"
        ),
        "SOLVER.MOMENTUM": Key(
            0.9, "momentum of SGD, without Nesterov", minimum=0, maximum=1, why="it changes every update"
        ),
        "SOLVER.PRECISION": Key(
            "tf32",
            "arithmetic of convolutions and linear layers; tf32 is fp32 where the device has no TF32",
            choices=("fp64", "fp32", "tf32"),
            why="rounding decides the trajectory; always explicit, never chosen by the device",
        ),
        "SOLVER.THREADS": Key(
            1,
            "CPU threads of the process",
            minimum=1,
            maximum=4096,
            why="one and two threads add in another order and differ within a few steps",
        ),
        "EXPERIMENT.PROJECT": Key(
            "distill",
            "published key, without effect: the run's directory is its name",
            identity=False,
            why=_NAME,
        ),
        "EXPERIMENT.NAME": Key("", "published key, without effect", identity=False, why=_NAME),
        "EXPERIMENT.TAG": Key("default", "published key, without effect", identity=False, why=_NAME),
        "LOG.TENSORBOARD_FREQ": Key(500, "published key, without effect", minimum=1, identity=False, why=_WORK),
        "LOG.SAVE_CHECKPOINT_FREQ": Key(
            40,
            "published key, without effect: the state is saved by the clock",
            minimum=1,
            identity=False,
            why=_WORK,
        ),
        "LOG.PREFIX": Key("./output", "published key, without effect", identity=False, why=_NAME),
        "LOG.TENSORBOARD": Key(False, "log each epoch for TensorBoard, too", identity=False, why=_WORK),
        "LOG.WANDB": Key(False, "log each epoch to Weights & Biases, too", identity=False, why=_WORK),
    }


@cache
def method_keys(method):
    """{dotted key: Key} of a method's own node, e.g. {"KD.TEMPERATURE": Key(4.0, ...)}."""
    if method == ALIAS:
        return alias_keys()
    return {f"{method}.{name}": key for name, key in components.methods()[method]["keys"].items()}


def without_alias(name):
    """The key's name below the method that the alias stands for."""
    return name.replace(f"{ALIAS}.", f"{ALIASED}.", 1) if name.startswith(f"{ALIAS}.") else name


@cache
def scaling_keys():
    return {f"GKD.{name}": key for name, key in components.gradient_scaling()["keys"].items()}


@cache
def trainer_keys(trainer):
    values = components.trainers()[trainer]
    return {f"{values['node']}.{name}": key for name, key in values["keys"].items()}


@cache
def all_keys():
    """{dotted key: Key} of everything that a params file may name."""
    keys = {**base_keys(), **scaling_keys(), **alias_keys()}
    for method in components.methods():
        keys.update(method_keys(method))
    for trainer in components.trainers():
        keys.update(trainer_keys(trainer))
    return keys


@cache
def alias_keys():
    """The node GradientKD of the GKD repository (its cfg.py:178-183): KD with its own defaults, scaled by GKD."""
    return {
        "GradientKD.TEMPERATURE": Key(4.0, "read as KD.TEMPERATURE", above=0, why="the value goes into KD's"),
        "GradientKD.LOSS.CE_WEIGHT": Key(1.0, "read as KD.LOSS.CE_WEIGHT", minimum=0, why="the value goes into KD's"),
        "GradientKD.LOSS.KD_WEIGHT": Key(
            1.0,
            "1 whatever is given: the GKD repository reads the key and does not apply it",
            minimum=0,
            gkd=1.0,
            ignored_by_gkd=True,
            identity=False,
            why="it has no effect in the code that it belongs to",
        ),
        "GradientKD.WARMUP": Key(20, "read as KD.WARMUP", minimum=0, why="the value goes into KD's"),
    }

"""Every configuration key that a run understands: one union of mdistiller's and GKD's, and this project's own.

Published keys keep their spelling. Keys of methods, trainers and transforms are declared in their own files and only
collected here.
"""

from functools import cache

from distillbench.config import components
from distillbench.config.keys import Key

SCHEMA = 1  # number of the specification format; the defaults below are frozen with it

_WORK = "how the work is done, not what is computed"
_NAME = "a name does not change numbers"
_DATA = "another {} is another experiment"

DEFAULTS = Key(
    "mdistiller",
    "whose defaults fill the keys that are not given",
    choices=("mdistiller", "gkd"),
    identity=False,
    why="only the values that it selects count, and these are in the specification",
)
DATASET = {
    "TYPE": Key("cifar100", "the dataset; in a params file `dataset:` sets it", why=_DATA.format("dataset")),
    "NUM_WORKERS": Key(
        8, "published key, without effect: `--workers` says how many decode", minimum=0, identity=False, why=_WORK
    ),
    "TEST.BATCH_SIZE": Key(
        64, "published key, without effect: the test batch changes no metric", minimum=1, identity=False, why=_WORK
    ),
    "NUM_NONTARGET": Key(
        5, "published key of GKD's gradient log, without effect", minimum=0, identity=False, why=_WORK
    ),
    "STAGE": Key(
        "",
        "folder of the machine that trains, may hold $VARIABLES: a data set of files is copied there and read there",
        identity=False,
        why="where bytes lie does not change them",
    ),
}
NETWORKS = {
    "TEACHER": Key("ResNet50", "the teacher's network; in a params file `pairs:` sets it", why=_DATA.format("teacher")),
    "STUDENT": Key(
        "resnet32", "the network that is trained; in a params file `pairs:` sets it", why=_DATA.format("network")
    ),
}
SOLVER = {
    "BATCH_SIZE": Key(
        64, "images per update, over all devices", minimum=1, why="it changes the noise and the number of updates"
    ),
    "BATCH_STATISTICS": Key(
        "global",
        "images over which batch norm and losses that couple images compute: the batch, or micro-batches of so many",
        choices=("global",),
        or_number=int,
        minimum=2,
        why="statistics over other images are other numbers; how many processes share the micro-batches changes none",
    ),
    "EPOCHS": Key(240, "passes over the training images", minimum=1, why="the length of the schedule"),
    "LR": Key(
        0.05,
        "learning rate once it is warm, before it decays; the default is SGD's",
        above=0,
        why="it changes every update",
    ),
    "WARMUP_EPOCHS": Key(
        0,
        "epochs n in which the rate rises: epoch e has e / (n + 1) of it; as all schedules, from epoch to epoch",
        minimum=0,
        why="the rate of the first epochs",
    ),
    "WEIGHT_DECAY": Key(
        1e-4,
        "L2 coefficient, on every parameter; decoupled in AdamW: this much of a weight, times the rate, goes a step",
        minimum=0,
        why="it changes every update",
    ),
    "PRECISION": Key(
        "tf32",
        "arithmetic of the student's convolutions, all else is fp32 (fp64); tf32 is fp32 where the device has none",
        choices=("fp64", "fp32", "tf32", "bf16"),
        why="rounding decides the trajectory; always explicit, never chosen by the device",
    ),
    "THREADS": Key(
        1,
        "CPU threads of the process",
        minimum=1,
        maximum=4096,
        why="one and two threads add in another order and differ within a few steps",
    ),
    "LABEL_SMOOTHING": Key(
        0.0,
        "of the cross entropy on the labels in training: this much of a label is spread over all classes",
        minimum=0,
        maximum=0.999999,
        why="another loss",
    ),
    "MIXUP": Key(
        0.0,
        "alpha: training images are mixed in pairs with shares from Beta(alpha, alpha); 0: not at all",
        minimum=0,
        why="other images and labels",
    ),
}
SCHEDULES = {  # the keys of SOLVER that each schedule of the learning rate reads
    "step": {
        "LR_DECAY_STAGES": Key(
            [150, 180, 210],
            "epochs after which the rate decays (150: from epoch 151 on)",
            minimum=1,
            increasing=True,
            why="the rate of every later epoch",
        ),
        "LR_DECAY_RATE": Key(0.1, "factor of a decay", above=0, maximum=1, why="the rate of every later epoch"),
    },
    "cosine": {
        "MIN_LR": Key(0.0, "what the rate falls to at the end; at most LR", minimum=0, why="the rate of every epoch"),
    },
}
EXPERIMENT = {
    "PROJECT": Key(
        "distill", "published key, without effect: the run's directory is its name", identity=False, why=_NAME
    ),
    "NAME": Key("", "published key, without effect", identity=False, why=_NAME),
    "TAG": Key("default", "published key, without effect", identity=False, why=_NAME),
}
LOG = {
    "TENSORBOARD_FREQ": Key(500, "published key, without effect", minimum=1, identity=False, why=_WORK),
    "SAVE_CHECKPOINT_FREQ": Key(
        40, "published key, without effect: the state is saved by the clock", minimum=1, identity=False, why=_WORK
    ),
    "PREFIX": Key("./output", "published key, without effect", identity=False, why=_NAME),
    "TENSORBOARD": Key(False, "log each epoch for TensorBoard, too", identity=False, why=_WORK),
    "WANDB": Key(False, "log each epoch to Weights & Biases, too", identity=False, why=_WORK),
}
LOGGERS = {"tensorboard": "LOG.TENSORBOARD", "wandb": "LOG.WANDB"}  # package: the key that asks for it


@cache
def base_keys():
    """{dotted key: Key} of the keys that every run reads."""
    return {
        "DEFAULTS": DEFAULTS,
        **below("DATASET", DATASET),
        "DISTILLER.TYPE": _method(),
        **below("DISTILLER", NETWORKS),
        "SOLVER.TRAINER": Key(
            "base",
            "how the losses become an update",
            choices=tuple(components.trainers()),
            why="another update is another experiment",
        ),
        "SOLVER.TYPE": Key(
            "SGD",
            "the optimizer",
            choices=tuple(components.optimizers()),
            why="another optimizer is another experiment",
        ),
        "SOLVER.SCHEDULE": Key(
            "step",
            "how the rate falls after the warm-up: at LR_DECAY_STAGES, or along half a cosine",
            choices=tuple(SCHEDULES),
            why="the rate of every epoch",
        ),
        **below("SOLVER", SOLVER),
        **below("EXPERIMENT", EXPERIMENT),
        **below("LOG", LOG),
    }


def _method():
    aliases = components.aliases()
    read = "".join(f", {name} is read as {a['method']} with {a['transform']}" for name, a in aliases.items())
    return Key(
        "NONE",
        f"the method; NONE trains on the labels alone{read}",
        choices=(*components.methods(), *aliases),
        why="the method is what is compared",
    )


def below(node, keys):
    """{dotted key: Key} of keys below a node."""
    return {f"{node}.{name}": key for name, key in keys.items()}


def method_keys(method):
    """{dotted key: Key} of a method, e.g. {"KD.TEMPERATURE": Key(4.0, ...)}, or of an alias."""
    if alias := components.aliases().get(method):
        return below(method, alias["keys"])
    declared = components.methods()[method]
    return below(declared["node"], declared["keys"])


def without_alias(name):
    """The key's name below the method that an alias stands for."""
    node, _, key = name.partition(".")
    alias = components.aliases().get(node)
    return f"{components.methods()[alias['method']]['node']}.{key}" if alias else name


def trainer_keys(trainer):
    declared = components.trainers()[trainer]
    return below(declared["node"], declared["keys"])


def choices_of(name):
    """{choice: {dotted key that only it reads: Key}} of SOLVER.TYPE and SOLVER.SCHEDULE."""
    optimizers = {optimizer: declared["keys"] for optimizer, declared in components.optimizers().items()}
    choices = {"SOLVER.TYPE": optimizers, "SOLVER.SCHEDULE": SCHEDULES}[name]
    return {choice: below("SOLVER", keys) for choice, keys in choices.items()}


def solver_keys(optimizer, schedule):
    """{dotted key: Key} of an optimizer and a schedule of the learning rate."""
    return choices_of("SOLVER.TYPE")[optimizer] | choices_of("SOLVER.SCHEDULE")[schedule]


def transform_keys(transform):
    declared = components.transforms()[transform]
    return below(declared["node"], declared["keys"])


@cache
def all_keys():
    """{dotted key: Key} of everything that a params file may name."""
    keys = base_keys()
    for transform in components.transforms():
        keys = keys | transform_keys(transform)
    for method in (*components.aliases(), *components.methods()):
        keys = keys | method_keys(method)
    for trainer in components.trainers():
        keys = keys | trainer_keys(trainer)
    for optimizer in components.optimizers():
        for schedule in SCHEDULES:
            keys = keys | solver_keys(optimizer, schedule)
    return keys

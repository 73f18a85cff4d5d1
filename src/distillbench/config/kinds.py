"""The kinds of components, and what each declares: the fields of its declaration with their rules and defaults."""

import re

from distillbench.config.declarations import Field, Kind
from distillbench.config.keys import UNSET, Key
from distillbench.errors import UserError

NAME = r"[A-Za-z][A-Za-z0-9_]*"
DOTTED = rf"{NAME}(\.{NAME})*"
MODULE = r"\w+(\.\w+)*"
LABEL = "[a-z0-9_]+"  # text in the ids of runs
# Of a specification, besides the places of transforms.
PARTS = ("schema", "task", "dataset", "student", "views", "teacher", "method", "trainer", "schedule", "batch", "seed")
PARTS += ("replicate", "precision", "threads", "logit_table", "label_smoothing")
TEACHER = ("none", "logits", "network")
NEEDS = ((), ("teacher_logits",), ("teacher_logits", "teacher_features"))  # the same in their earlier spelling
AUGMENTATIONS = {
    "crop_flip": {"crop_padding": 4, "flip": True},
    "rotation_flip": {"degrees": 20, "interpolation": "nearest", "flip": True},
    "resized_crop_flip": {"scale": [0.08, 1.0], "ratio": [0.75, 1.33], "interpolation": "bilinear", "flip": True},
}  # an example of each kind; one without `kind` is the first


# What a value must be


def _must(valid, expected, default=...):
    """A field whose values are valid. valid: a function of one; default: of a field that may be left out."""
    return Field(
        lambda value, values: None if valid(value) or value is default else f"must be {expected}",
        *([] if default is ... else [default]),
    )


def _is_whole(value):
    return type(value) is int and value > 0


def _is_text(pattern):
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_colour(value):
    return isinstance(value, tuple) and len(value) == 3 and all(type(entry) in (int, float) for entry in value)


def _name(value, values):
    return None if _is_text(NAME)(value) else f"{value!r} must be a text of letters, digits and _"


def _keys(keys, values):
    if not isinstance(keys, dict) or not all(isinstance(k, str) and isinstance(v, Key) for k, v in keys.items()):
        return 'must be a mapping of texts to Key(default, "help"), e.g. {"WEIGHT": Key(1.0, "of the loss")}'
    for key, declared in keys.items():
        if not re.fullmatch(DOTTED, key) or any(other.startswith(f"{key}.") for other in keys):
            return f"key {key!r} must be letters, digits and _, dotted at most, and no node of another key"
        if not _has_a_type(declared.default) or not isinstance(declared.help, str):
            types = "a number, text, true or false, or a list of numbers or of texts that is not empty"
            return f"key {key}: the default must be {types}, the help a text"
        try:
            declared.check(declared.default, f"key {key}: the default")
            if declared.gkd != UNSET:
                declared.check(declared.gkd, f"key {key}: the default of the GKD repository")
        except UserError as error:
            return str(error)
        except TypeError:  # of a bound that is no number, choices that are no texts
            return f"key {key}: minimum, above and maximum must be numbers, choices a tuple of texts"
    return None


def _has_a_type(default):
    if isinstance(default, list):
        return len({type(entry) for entry in default}) == 1 and type(default[0]) in (int, float, str)
    return isinstance(default, (bool, int, float, str))


def _one_of_its_keys(value, values):
    return None if value in (None, *values["keys"]) else "must be the name of one of its keys"


def _needs(value, values):
    if value is not None and value not in NEEDS:
        return f"must be one of {', '.join(map(str, NEEDS))}"
    return "says what teacher says, too; remove it" if None not in (value, values["teacher"]) else None


def _trainer_node(value, values):
    fine = (value is None and not values["keys"]) or _is_text(DOTTED)(value)
    return None if fine else "must be the node of its keys, e.g. SOLVER.DOT"


def _aliases(value, values):
    if not isinstance(value, dict) or not all(
        _is_text(NAME)(name) and isinstance(alias, dict) and alias.keys() == {"method", "defaults", "keys"}
        for name, alias in value.items()
    ):
        return 'must be a mapping like {"NAME": {"method": "KD", "defaults": "mdistiller", "keys": {...}}}'
    return next(filter(None, (_keys(alias["keys"], values) for alias in value.values())), None)


def _networks(value, values):
    fine = isinstance(value, dict) and value and all(isinstance(arguments, dict) for arguments in value.values())
    if fine and all(_is_text("[A-Za-z0-9_]+")(name) for name in value):
        return None
    return 'must be a mapping of networks to arguments, e.g. {"resnet8": {"depth": 8}}'


def _are_modules(value):
    return isinstance(value, tuple) and all(map(_is_text(MODULE), value))


def _augmentation(value, values):
    options = {name: option for name, option in value.items() if name != "kind"} if isinstance(value, dict) else {}
    kind = value.get("kind", "crop_flip") if isinstance(value, dict) else "crop_flip"
    example = AUGMENTATIONS.get(kind) if isinstance(kind, str) else None
    if example is None:
        return f"must be of one of the kinds {', '.join(AUGMENTATIONS)}"
    if options.keys() == example.keys() and all(_is_like(options[name], entry) for name, entry in example.items()):
        return None
    return f"must be a mapping like {example}"


def _is_like(value, example):
    """Whether it has the example's type, and numbers are not negative."""
    if isinstance(example, list):
        return isinstance(value, list) and len(value) == len(example) and all(map(_is_like, value, example))
    return type(value) is type(example) and (type(value) not in (int, float) or value >= 0)


def _identified(value, values):
    if not any(values[field] for field in BYTES) and not all(values[field] for field in COUNTS):
        missing = ", ".join(field for field in (*BYTES[1:], *COUNTS) if not values[field])
        return f"is missing, and so are {missing}; write what tells these images from others"
    if value is None or _is_text("[0-9a-f]{64}")(value):
        return None
    return "must be a digest of 64 hex digits"


# What there is

IDENTIFIED = {
    "name": Field(_name),
    "version": _must(_is_whole, "a positive integer"),
    "bibtex": _must(lambda value: isinstance(value, str), 'a text, """@article{key, ...}"""', ""),
}
KEYS = {"keys": Field(_keys, {})}
BYTES, COUNTS = ("sha256", "md5", "files_sha256"), ("num_train", "num_test")
DIGESTS = (*BYTES, *COUNTS, "classes_sha256")


def _method(values):
    """`teacher` in the place of `needs`, and the node."""
    needs = values.pop("needs")
    teacher = values["teacher"] or TEACHER[NEEDS.index(needs or ())]
    return {**values, "teacher": teacher, "node": values["node"] or values["name"]}


METHOD = Kind(
    "method",
    "methods",
    True,
    IDENTIFIED
    | KEYS
    | {
        "node": _must(_is_text(DOTTED), "the node of its keys, e.g. KD", None),
        "teacher": _must(lambda value: value in TEACHER, "none, logits or network", None),
        "needs": Field(_needs, None),
        "views": _must(_is_whole, "a positive integer", 1),
        "capturable": _must(lambda value: type(value) is bool, "True or False", True),
        "temperature": Field(_one_of_its_keys, None),
    },
    _method,
)
# label: of the trainer, in a run's id; two_losses: whether it needs a distillation loss; margin: the key that the
# momentum has to leave room for; version_without_margin: the version where it leaves none, if that is another;
# solver: the keys of SOLVER that it is defined for one value of, {"TYPE": "SGD"}.
TRAINER = Kind(
    "trainer",
    "trainers",
    True,
    IDENTIFIED
    | KEYS
    | {
        "node": Field(_trainer_node, None),
        "label": _must(_is_text(LABEL), "lower-case letters, digits and _", ""),
        "version_without_margin": _must(_is_whole, "a positive integer", None),
        "two_losses": _must(lambda value: type(value) is bool, "True or False", False),
        "margin": Field(_one_of_its_keys, None),
        "solver": _must(lambda value: isinstance(value, dict), 'a mapping of keys of SOLVER, e.g. {"TYPE": "SGD"}', {}),
    },
)
OPTIMIZER = Kind("optimizer", "optimizers", True, IDENTIFIED | KEYS, lambda values: {**values, "node": "SOLVER"})
# place: its key in a specification; node: of its keys, a row that has it is transformed; label: in a run's id; figure:
# the one that shows what it observes; aliases: names that another repository gives to a method with this transform,
# {name: {"method": the method, "defaults": whose fill its keys, "keys": those of the node of the alias's name}}.
TRANSFORM = Kind(
    "transform",
    "transforms",
    True,
    IDENTIFIED
    | KEYS
    | {
        "place": _must(
            lambda value: _is_text(NAME)(value) and value not in PARTS,
            f"a text of letters, digits and _, and none of {', '.join(PARTS)}",
        ),
        "node": _must(_is_text(DOTTED), "the node of its keys, e.g. EMA"),
        "label": _must(_is_text(LABEL), "lower-case letters, digits and _"),
        "order": _must(_is_whole, "a positive integer"),
        "figure": _must(_is_text(NAME), "the name of a figure", None),
        "aliases": Field(_aliases, {}),
    },
)
# DIGESTS: what tells these images from others, any or all: SHA-256 of the prepared images, the published MD5 of the
# archive, SHA-256 over names and contents of the files in a folder; where none of these BYTES is known, the numbers of
# images and the SHA-256 of the sorted names of the classes, one a line, are part of a run's identity in their place;
# zoo: the folder of models/ that has its networks.
DATASET = Kind(
    "dataset",
    "data",
    False,
    IDENTIFIED
    | {
        "sha256": Field(_identified, None),
        "md5": _must(_is_text("[0-9a-f]{32}"), "a digest of 32 hex digits", None),
        "files_sha256": _must(_is_text("[0-9a-f]{64}"), "a digest of 64 hex digits", None),
        "num_train": _must(_is_whole, "a positive integer", None),
        "num_test": _must(_is_whole, "a positive integer", None),
        "classes_sha256": _must(_is_text("[0-9a-f]{64}"), "a digest of 64 hex digits", None),
        "zoo": Field(_name),
        "num_classes": _must(_is_whole, "a positive integer"),
        "image_size": _must(_is_whole, "a positive integer"),
        "mean": _must(_is_colour, "three numbers, a channel each"),
        "std": _must(_is_colour, "three numbers, a channel each"),
        "augmentation": Field(_augmentation),
    },
)
FAMILY = Kind("family of networks", "models", False, IDENTIFIED | {"networks": Field(_networks)})
# Of the user's own, whose networks may give logits alone: stages: modules whose outputs are the maps behind the stem,
# "layer1" or "features.3"; stem, head: the modules of the first map and of the classifier. Else they are looked for.
OWN_FAMILY = FAMILY._replace(
    fields=FAMILY.fields
    | {
        "stages": _must(_are_modules, 'a tuple of names of modules, e.g. ("layer1", "layer2")', ()),
        "stem": _must(_is_text(MODULE), "the name of a module, e.g. conv1", None),
        "head": _must(_is_text(MODULE), "the name of a module, e.g. fc", None),
    }
)
TASK = Kind("task", "tasks", False, IDENTIFIED | {"headline": _must(_is_text(NAME), "the name of a metric")})
KINDS = {
    "method": METHOD,
    "trainer": TRAINER,
    "optimizer": OPTIMIZER,
    "transform": TRANSFORM,
    "dataset": DATASET,
    "family": FAMILY,
    "task": TASK,
}

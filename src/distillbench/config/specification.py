"""The specification of a run: what it is, its canonical form, its digest and its directory."""

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from glob import iglob
from pathlib import PurePosixPath

import rfc8785

from distillbench.config import components
from distillbench.config.keys import UNSET
from distillbench.config.kinds import BYTES, DIGESTS
from distillbench.config.schema import SCHEMA, solver_keys
from distillbench.errors import UserError
from distillbench.files import read_json

CHECKPOINTS = ("last", "best")  # of a run's weights
PUBLISHED = "published"  # a protocol, see protocols.py
# Also the workflow's wildcard. A dot stands for the colon of torchvision:resnet18, which not every file system has.
RUN_ID = r"[A-Za-z0-9_]+/[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*/[a-z0-9+_]+/s\d+-[0-9a-f]{12}"

# Values at which a key is left out of the digest, per schema number, frozen for ever: a key that is added
# later gets a line here with the value that reproduces what was done before it existed.
NEUTRAL = {
    1: {
        ("teacher",): None,
        ("gradient_scaling",): None,
        ("replicate",): 0,
        ("student", "weights"): None,
        ("views", "count"): 1,
        ("views", "mixup"): 0.0,
        ("label_smoothing",): 0.0,
        ("batch", "statistics"): "global",
        ("trainer", "parameters"): {},
        ("logit_table",): "fp32",
        ("schedule", "version"): 1,  # of the optimizer
        ("schedule", "NESTEROV"): False,
        ("schedule", "SCHEDULE"): "step",
        ("schedule", "WARMUP_EPOCHS"): 0,
        # of ImageNet, whose classes were meant before they were named
        ("dataset", "classes_sha256"): "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
    }
}


@dataclass(frozen=True)
class Specification:
    """A run, completely resolved. `data` is what `spec.json` holds under "specification"."""

    data: dict

    def __getitem__(self, key):
        return self.data[key]

    @cached_property
    def canonical(self):
        """The bytes that are hashed: RFC 8785 JSON without the keys that are at their neutral value."""
        return rfc8785.dumps(without_neutral(self.data))

    @cached_property
    def digest(self):
        return hashlib.sha256(self.canonical).hexdigest()

    @cached_property
    def id(self):
        """The run's directory below results/runs: DATASET/TEACHER-STUDENT/METHOD/sSEED-HASH12."""
        networks = self["student"]["network"]
        if self["teacher"]:
            networks = f"{self.teacher_network}-{networks}"
        networks = networks.replace(":", ".")
        return str(
            PurePosixPath(self["dataset"]["name"], networks, self.method_label, f"s{self['seed']}-{self.digest[:12]}")
        )

    @property
    def method_label(self):
        trainer = self["trainer"]["name"]
        transforms = [declared["label"] for declared in self.transforms.values()]
        parts = [self["method"]["name"], *transforms, components.trainers().get(trainer, {}).get("label", trainer)]
        return "+".join(filter(None, parts)).lower()

    @property
    def transforms(self):
        """{name: declaration} of the transforms that logits go through, in this order."""
        return {name: d for name, d in components.transforms().items() if self.data.get(d["place"])}

    @property
    def teacher_network(self):
        teacher = self["teacher"]
        return teacher["id"].split("/")[1].replace(".", ":") if teacher["kind"] == "run" else teacher["network"]

    @property
    def networks(self):
        """Names of the student's network and, where there is one, of the teacher's."""
        return [self["student"]["network"], *([self.teacher_network] if self["teacher"] else [])]

    @property
    def teacher_id(self):
        """The id of the run that made the teacher, or None."""
        teacher = self["teacher"]
        return teacher["id"] if teacher and teacher["kind"] == "run" else None

    def parameters(self, part):
        """The hyper-parameters of "method", "trainer" or a transform's place; those that did not exist when the
        specification was written have the value that stands for what was done then.
        """
        keys = _declared_keys(self.data)[part]
        neutral = {name: key.neutral for name, key in keys.items() if key.neutral != UNSET}
        return {**neutral, **self[part].get("parameters", {})}

    @property
    def schedule(self):
        """The specification's "schedule", complete: also with the keys that it does without at their neutral value."""
        return {**_neutral_schedule(self["schema"]), **self["schedule"]}

    @property
    def label_smoothing(self):
        return self.data.get("label_smoothing", 0.0)

    @property
    def mixup(self):
        """Its alpha; 0 where images are not mixed."""
        return self["views"].get("mixup", 0.0)

    def as_file(self):
        """The content of spec.json."""
        return {"id": self.id, "sha256": self.digest, "specification": self.data}


def run_ids(folder):
    """Ids of all runs of which anything is in a folder like results/runs, finished or partly pulled, sorted.

    Only names are read, no file, so that 1000 runs take hundredths of a second.
    """
    found = {os.path.dirname(path) for path in iglob("*/*/*/*/*", root_dir=folder, include_hidden=True)}
    return sorted(run for run in found if re.fullmatch(RUN_ID, run))


def without_neutral(data):
    neutral = NEUTRAL[data["schema"]]

    def strip(value, path):
        if not isinstance(value, dict):
            return value
        return {
            key: strip(entry, (*path, key))
            for key, entry in value.items()
            if (*path, key) not in neutral or neutral[*path, key] != entry
        }

    stripped = strip(data, ())
    for part, keys in _declared_keys(data).items():
        if isinstance(stripped.get(part), dict) and isinstance(stripped[part].get("parameters"), dict):
            parameters = stripped[part]["parameters"]
            kept = {name: v for name, v in parameters.items() if name not in keys or keys[name].neutral != v}
            stripped[part] = {**stripped[part], "parameters": kept}
    return stripped


def _declared_keys(data):
    """{part of a specification: declared keys of its parameters}. A user's own method is known by its digest."""
    return {
        "method": components.packaged_methods().get(data["method"]["name"], {}).get("keys", {}),
        **{declared["place"]: declared["keys"] for declared in components.transforms().values()},
        "trainer": components.trainers().get(data["trainer"]["name"], {}).get("keys", {}),
    }


def is_seed(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53  # what JSON holds exactly


def flat(value, prefix=""):
    """{dotted key: value} of nested mappings."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {k: v for key, entry in value.items() for k, v in flat(entry, f"{prefix}.{key}" if prefix else key).items()}


def read_specification(path):
    """The specification in a spec.json. Raises UserError where its text does not have the digest it names."""
    content = read_json(path)
    try:
        specification = Specification(content["specification"])
        if specification["schema"] not in NEUTRAL:
            known = ", ".join(map(str, NEUTRAL))
            raise UserError(f"{path}: schema {specification['schema']!r} is not one that this code reads ({known})")
        stated, actual, run = content["sha256"], specification.digest, specification.id
        if not isinstance(stated, str):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):  # ValueError: nothing that RFC 8785 writes
        raise UserError(
            f"{path}: not a run specification; `distillbench plan SUITE` writes them to results/specs/"
        ) from None
    if stated != actual:
        raise UserError(
            f"{path}: the specification has the digest {actual[:12]}, the file says {stated[:12]};"
            " it was edited: change params/ instead and restore this file"
        )
    if not re.fullmatch(RUN_ID, run):
        raise UserError(f"{path}: {run!r} is not a run id")
    return specification


def build_specification(config, *, transforms, teacher, seed, protocol=PUBLISHED):
    """The specification of one run.

    config: the resolved yacs node; transforms: names of those that its logits go through;
    teacher: the teacher object of the specification, or None; seed: integer >= 0; protocol: of `protocols`.
    """
    method = components.methods()[config.DISTILLER.TYPE]
    trainer = components.trainers()[config.SOLVER.TRAINER]
    solver = config.SOLVER
    trainer_parameters = _parameters(config, trainer["node"], trainer["keys"])
    schedule = _schedule(solver)
    return Specification(
        {
            **evaluated(config.DATASET.TYPE, config.DISTILLER.STUDENT, protocol),
            "views": {
                "count": method["views"],
                "augmentation": components.datasets()[config.DATASET.TYPE]["augmentation"],
                **({"mixup": solver.MIXUP} if solver.MIXUP else {}),
            },
            "teacher": teacher,
            "method": {
                "name": method["name"],
                "version": method["version"],
                "parameters": _parameters(config, method["node"], method["keys"]),
                **({"source_sha256": method["sha256"]} if "file" in method else {}),
            },
            **{d["place"]: _transform(config, d, name in transforms) for name, d in components.transforms().items()},
            "trainer": {
                "name": trainer["name"],
                "version": components.trainer_version(trainer["name"], trainer_parameters, schedule),
                "parameters": trainer_parameters,
            },
            "schedule": schedule,
            "batch": {"size": solver.BATCH_SIZE, "statistics": solver.BATCH_STATISTICS},
            "seed": seed,
            "replicate": 0,
            "precision": solver.PRECISION,
            "threads": solver.THREADS,
            "logit_table": "fp32",
            **({"label_smoothing": solver.LABEL_SMOOTHING} if solver.LABEL_SMOOTHING else {}),
        }
    )


def _schedule(solver):
    """What decides the updates, given losses and batches. solver: the yacs node."""
    names = ["EPOCHS", "LR", "WEIGHT_DECAY", "TYPE", "SCHEDULE", "WARMUP_EPOCHS"]
    names += [name.rpartition(".")[2] for name in solver_keys(solver.TYPE, solver.SCHEDULE)]
    values = {"version": components.optimizers()[solver.TYPE]["version"], **{name: solver[name] for name in names}}
    neutral = _neutral_schedule(SCHEMA)
    return {name: value for name, value in values.items() if neutral.get(name, ...) != value}


def _neutral_schedule(schema):
    return {path[1]: value for path, value in NEUTRAL[schema].items() if path[0] == "schedule"}


def evaluated(dataset, network, protocol=PUBLISHED):
    """What of a specification its evaluation depends on, as the code at hand does it. dataset, network: names."""
    declared = components.datasets()[dataset]
    stated = {field: declared[field] for field in DIGESTS if declared[field] is not None}
    digests = {field: stated[field] for field in BYTES if field in stated} or stated
    digests |= {"like": declared["like"]} if "like" in declared else {}
    code = components.network(network, dataset)
    student = {"network": network, "version": code["version"], "weights": None}
    student |= {"source_sha256": code["sha256"]} if "file" in code else {}
    return {
        "schema": SCHEMA,
        "task": "classification",
        "dataset": {"name": dataset, "version": declared["version"], **digests, "protocol": protocol},
        "student": student,
    }


def _transform(config, declared, used):
    """What stands at the place of a transform; without a neutral value there, it would rename every run without it."""
    place = declared["place"]
    if NEUTRAL[SCHEMA].get((place,), ...) is not None:
        raise UserError(f'{declared["path"]}: place: write ("{place}",): None in NEUTRAL, config/specification.py')
    if not used:
        return None
    return {"version": declared["version"], "parameters": _parameters(config, declared["node"], declared["keys"])}


def _parameters(config, node, keys):
    """{dotted key below the node: value} of the keys that a component declares, as far as they are of the identity."""
    values = {}
    for name in (name for name, key in keys.items() if key.identity):
        value = config
        for part in f"{node}.{name}".split("."):
            value = value[part]
        values[name] = value
    return values

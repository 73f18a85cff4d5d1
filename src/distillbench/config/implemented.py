"""Whether the code at hand does exactly what a specification says. Only training and predicting ask for that: what is
finished is read whatever made it.
"""

import re
from contextlib import suppress

import rfc8785

from distillbench.config import components
from distillbench.config.protocols import read_protocol
from distillbench.config.resolve import flatten, resolve
from distillbench.config.schema import below
from distillbench.config.specification import (
    CHECKPOINTS,
    RUN_ID,
    Specification,
    build_specification,
    evaluated,
    flat,
    is_seed,
    without_neutral,
)
from distillbench.errors import UserError, one_of
from distillbench.files import read_json

FILE = {"id", "sha256", "specification", "source"}  # the keys of a specification's file
SOURCE = {
    "file": str,
    "row": str,
    "notes": list,
    "method_file": (str, type(None)),
    "network_files": list,
    "stage": str,
}  # of "source"
SECTIONS = ("dataset", "student", "views", "method", "trainer", "schedule", "batch")


def require_trainable(specification):
    """Raise UserError, naming the first key, unless training does what the specification says, no more and no less.

    The specification is taken back to the keys that a params file would hold; planning these with the code at hand
    has to give the same specification.
    """
    data, run = specification.data, specification.id
    _require_sections(run, data)
    try:
        _require_names(run, data, ("dataset", "student", "method", "trainer"))
        _require_source(run, data["method"], components.methods()[data["method"]["name"]])
        _require_source(run, data["student"], components.network(data["student"]["network"], data["dataset"]["name"]))
        if not is_seed(data["seed"]):
            raise UserError(f"{run}: seed: {data['seed']!r} is not valid here, expected an integer from 0 on")
        planned = _plan_again(specification)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run}: the specification is incomplete or has another form ({error!r})") from None
    _require_same(run, without_neutral(data), without_neutral(planned.data), "train")
    _require_teacher(specification)


def require_predictable(specification):
    """Raise UserError unless predicting does what task, dataset, split, network and precision stand for."""
    data, run = specification.data, specification.id
    if missing := {"task", "precision", "threads"} - data.keys():
        raise UserError(f"{run}: {min(missing)} is missing; restore the specification")
    _require_names(run, data, ("dataset", "student"))
    wanted = evaluated(data["dataset"]["name"], data["student"]["network"], _protocol(specification))
    sides = (without_neutral(side) for side in (data, {**data, **wanted}))
    _require_same(run, *({key: side[key] for key in wanted} for side in sides), "predict")
    read = flatten({"SOLVER.PRECISION": data["precision"], "SOLVER.THREADS": data["threads"]}, run).values
    stated = {"precision": data["precision"], "threads": data["threads"]}
    _require_same(run, stated, dict(zip(stated, read.values(), strict=True)), "predict")


def require_file(path):
    """Raise UserError for keys in a specification's file that nobody reads, or an id that is not its own."""
    content = read_json(path)
    source = content.get("source")
    if not isinstance(source, (dict, type(None))):
        raise UserError(f"{path}: source: {source!r} is not valid here, expected a mapping or null; plan again")
    for keys, known, place in ((content, FILE, ""), (source or {}, SOURCE, "source.")):
        for key in keys:
            if key not in known:
                raise UserError(f"{path}: {place}{key}: {one_of(key, known, 'key')}")
    for key, value in (source or {}).items():
        if not isinstance(value, SOURCE[key]):
            raise UserError(f"{path}: source.{key}: {value!r} is not valid here; plan again")
    if content.get("id") != (run := Specification(content["specification"]).id):
        raise UserError(f"{path}: id: {content.get('id')!r}, but the specification is that of {run}")


def older(specification):
    """What of the code that a specification names is another version here: ["student 1 (now 2)", ...]."""
    data, found = specification.data, []
    declared = {part: known.get(name) for part, (name, known) in _named(data).items()}
    if trainer := declared["trainer"]:
        now = components.trainer_version(trainer["name"], specification.parameters("trainer"), data["schedule"])
        declared["trainer"] = {"version": now}
    declared |= {transform["place"]: transform for transform in specification.transforms.values()}
    stated = {part: data[part].get("version") for part in declared}
    declared["optimizer"] = components.optimizers().get(specification.schedule["TYPE"])
    stated["optimizer"] = specification.schedule["version"]
    for part, values in declared.items():
        if values and stated[part] != values["version"]:
            found.append(f"{part} {stated[part]} (now {values['version']})")
    return found


def _named(data):
    """{part of a specification: (the component that it names, those that there are)}"""
    return {
        "dataset": (data["dataset"]["name"], components.datasets()),
        "student": (data["student"]["network"], _networks(data["student"]["network"], data["dataset"]["name"])),
        "method": (data["method"]["name"], components.methods()),
        "trainer": (data["trainer"]["name"], components.trainers()),
    }


def _networks(name, dataset):
    """{name: declaration} of the networks for a dataset, also of one of a library that is here."""
    with suppress(UserError):
        return {**components.networks(dataset), name: components.network(name, dataset)}
    return components.networks(dataset)


def _require_sections(run, data):
    """Raise UserError where a section is no mapping."""
    places = [declared["place"] for declared in components.transforms().values()]
    sections = {part: data.get(part) for part in SECTIONS}
    sections |= {part: data[part] for part in ("teacher", *places) if data.get(part) is not None}
    for part in ("method", "trainer", *places):
        if isinstance(sections.get(part), dict) and "parameters" in sections[part]:
            sections[f"{part}.parameters"] = sections[part]["parameters"]
    for part, value in sections.items():
        if not isinstance(value, dict):
            raise UserError(
                f"{run}: {part}: {value!r} is not valid here, expected a mapping; restore the specification"
            )


def _require_names(run, data, parts):
    for part in parts:
        name, known = _named(data)[part]
        if name not in known:
            if ":" in str(name):  # of a library, which says what is wrong
                components.network(name, data["dataset"]["name"])
            raise UserError(f"{run}: {part}: {one_of(name, known, 'name')}")


def _require_source(run, stated, declared):
    if declared.get("sha256") != stated.get("source_sha256"):
        where, name = declared.get("file", "the package"), declared["name"]
        raise UserError(f"{where}: {name} is not as it was when {run} was planned; plan the suite again")


def _plan_again(specification):
    """The specification that planning would write now for what this one says."""
    data = specification.data
    method, trainer = components.methods()[data["method"]["name"]], components.trainers()[data["trainer"]["name"]]
    keys = {
        "DATASET.TYPE": data["dataset"]["name"],
        "DISTILLER.TYPE": method["name"],
        "DISTILLER.STUDENT": data["student"]["network"],
        "SOLVER.TRAINER": trainer["name"],
        "SOLVER.BATCH_SIZE": data["batch"]["size"],
        "SOLVER.BATCH_STATISTICS": data["batch"].get("statistics", "global"),
        "SOLVER.PRECISION": data["precision"],
        "SOLVER.THREADS": data["threads"],
        "SOLVER.LABEL_SMOOTHING": specification.label_smoothing,
        "SOLVER.MIXUP": specification.mixup,
        **below("SOLVER", {key: value for key, value in data["schedule"].items() if key != "version"}),
        **below(method["node"], specification.parameters("method")),
        **below(trainer["node"], specification.parameters("trainer")),
    }
    for transform in specification.transforms.values():
        keys |= {transform["node"]: {}, **below(transform["node"], specification.parameters(transform["place"]))}
    config, transforms, _ = resolve((), flatten(keys, specification.id))
    others = {"teacher": data["teacher"], "seed": data["seed"], "protocol": _protocol(specification)}
    return build_specification(config, transforms=transforms, **others)


def _protocol(specification):
    return read_protocol(specification["dataset"]["protocol"], f"{specification.id}: dataset.protocol")


def _require_same(run, stated, here, what):
    stated, here = flat(stated), flat(here)
    for key in dict.fromkeys([*stated, *here]):
        if key not in here:
            raise UserError(f"{run}: {key}: {stated[key]!r} is not something that this code can {what}; plan again")
        if key not in stated:
            raise UserError(f"{run}: {key} is missing; this code would {what} with {here[key]!r}; plan again")
        if _typed(stated[key]) != _typed(here[key]):
            raise UserError(f"{run}: {key}: {stated[key]!r} is asked for, this code does {here[key]!r}; plan again")


def _typed(value):
    """A value by its bytes in the digest and by its type: RFC 8785 writes 1.0 and 1 alike, torch takes 1 alone."""
    entries = value if isinstance(value, list) else [value]
    return rfc8785.dumps(value), [type(entry) for entry in entries]


def _require_teacher(specification):
    teacher, run = specification["teacher"], specification.id
    needs = components.methods()[specification["method"]["name"]]["teacher"] != "none"
    if needs != bool(teacher):
        name = specification["method"]["name"]
        raise UserError(f"{run}: teacher: {name} {'needs one' if needs else 'has no use for one'}; plan again")
    if not teacher:
        return
    if teacher.get("kind") != "run":
        kind = teacher.get("kind")
        raise UserError(f"{run}: teacher.kind: {kind!r} cannot be loaded yet; only teachers that are runs")
    if teacher.keys() != {"kind", "id", "checkpoint"} or teacher["checkpoint"] not in CHECKPOINTS:
        raise UserError(
            f"{run}: teacher: {teacher!r} is not valid here, expected kind, id and checkpoint (last or best)"
        )
    if not re.fullmatch(RUN_ID, str(teacher["id"])):
        raise UserError(f"{run}: teacher.id: {teacher['id']!r} is not a run id")

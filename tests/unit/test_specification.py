"""Identity: what a run is decides its id, nothing else does, and no release renames a run by accident."""

import ast
import copy
import json
import os
import subprocess
import sys
from importlib import import_module

import pytest
import yaml
from standins import ROOT
from torchvision.datasets import CIFAR10, CIFAR100

from distillbench.config import components
from distillbench.config.kinds import DIGESTS, KINDS
from distillbench.config.schema import all_keys
from distillbench.config.specification import NEUTRAL, Specification, read_specification
from distillbench.config.suite import load_suite
from distillbench.errors import UserError
from distillbench.files import to_json

GOLDEN = json.loads((ROOT / "tests/fixtures/golden_specifications.json").read_text(encoding="utf-8"))
DKD = {"DISTILLER.TYPE": "DKD"}
KD, GKD, ALIAS = {"DISTILLER.TYPE": "KD"}, {"DISTILLER.TYPE": "KD", "GKD": {}}, {"DISTILLER.TYPE": "GradientKD"}
ADAMW = {**KD, "SOLVER.TYPE": "AdamW", "SOLVER.LR": 0.001}

# Every key of the schema, whether its value is part of a run's identity, and a row and a value that show it.
# A new key needs a line here. The value None: there is no other valid one; its place in the specification instead.
IDENTITY = {
    "DEFAULTS": (False, {"DISTILLER.TYPE": "NONE"}, "gkd"),
    "DATASET.TYPE": (True, ("dataset", "name"), None),
    "DATASET.NUM_WORKERS": (False, KD, 2),
    "DATASET.TEST.BATCH_SIZE": (False, KD, 7),
    "DATASET.NUM_NONTARGET": (False, KD, 3),
    "DATASET.STAGE": (False, KD, "/scratch"),
    "DISTILLER.TYPE": (True, KD, "NONE"),
    "DISTILLER.TEACHER": (True, KD, "wrn_16_2"),
    "DISTILLER.STUDENT": (True, KD, "resnet14"),
    "SOLVER.TRAINER": (True, KD, "dot"),
    "SOLVER.DOT.DELTA": (True, {**KD, "SOLVER.TRAINER": "dot"}, 0.05),
    "SOLVER.TYPE": (True, KD, "AdamW"),
    "SOLVER.SCHEDULE": (True, KD, "cosine"),
    "SOLVER.WARMUP_EPOCHS": (True, KD, 2),
    "SOLVER.MIN_LR": (True, {**KD, "SOLVER.SCHEDULE": "cosine"}, 0.01),
    "SOLVER.NESTEROV": (True, KD, True),
    **{f"SOLVER.{key}": (True, ADAMW, 0.5) for key in ("BETA1", "BETA2", "EPS")},
    "SOLVER.BATCH_SIZE": (True, KD, 32),
    "SOLVER.BATCH_STATISTICS": (True, KD, 16),
    "SOLVER.EPOCHS": (True, KD, 21),
    "SOLVER.LR": (True, KD, 0.1),
    "SOLVER.LR_DECAY_STAGES": (True, KD, [3, 5]),
    "SOLVER.LR_DECAY_RATE": (True, KD, 0.2),
    "SOLVER.WEIGHT_DECAY": (True, KD, 0.001),
    "SOLVER.MOMENTUM": (True, KD, 0.8),
    "SOLVER.PRECISION": (True, KD, "fp64"),
    "SOLVER.THREADS": (True, KD, 2),
    "SOLVER.LABEL_SMOOTHING": (True, KD, 0.1),
    "SOLVER.MIXUP": (True, KD, 0.2),
    "EXPERIMENT.PROJECT": (False, KD, "other"),
    "EXPERIMENT.NAME": (False, KD, "other"),
    "EXPERIMENT.TAG": (False, KD, "other"),
    "LOG.TENSORBOARD_FREQ": (False, KD, 7),
    "LOG.SAVE_CHECKPOINT_FREQ": (False, KD, 7),
    "LOG.PREFIX": (False, KD, "other"),
    "LOG.TENSORBOARD": (False, KD, True),
    "LOG.WANDB": (False, KD, True),
    "GKD.K": (True, GKD, -1),
    "GKD.SCALE": (True, GKD, 3),
    "GKD.CENTRE": (True, GKD, 0.5),
    "GKD.TEMPERATURE": (True, GKD, 2),
    "GKD.TARGET": (True, GKD, "teacher"),
    "GKD.FACTORS": (True, GKD, "shuffled"),
    "GradientKD.TEMPERATURE": (True, ALIAS, 2),
    "GradientKD.LOSS.CE_WEIGHT": (True, ALIAS, 2),
    "GradientKD.LOSS.KD_WEIGHT": (False, ALIAS, 2),
    "GradientKD.WARMUP": (True, ALIAS, 3),
    "KD.TEMPERATURE": (True, KD, 2),
    "KD.LOSS.CE_WEIGHT": (True, KD, 2),
    "KD.LOSS.KD_WEIGHT": (True, KD, 2),
    "KD.WARMUP": (True, KD, 3),
    "DKD.CE_WEIGHT": (True, DKD, 2),
    "DKD.ALPHA": (True, DKD, 2),
    "DKD.BETA": (True, DKD, 2),
    "DKD.T": (True, DKD, 2),
    "DKD.WARMUP": (True, DKD, 3),
    **{
        f"{name}.LOSS.{weight}": (True, {"DISTILLER.TYPE": name}, 2)
        for name in ("AT", "NST", "PKT", "SP", "RKD", "KDSVD", "FITNET", "VID", "OFD", "CRD")
        for weight in ("CE_WEIGHT", "FEAT_WEIGHT")
    },
    **{
        f"{name}.OFFICIAL": (True, {"DISTILLER.TYPE": name}, "mdistiller")
        for name in ("AT", "NST", "KDSVD", "FITNET", "VID", "OFD", "REVIEWKD")
    },
    "AT.P": (True, {"DISTILLER.TYPE": "AT"}, 4),
    "RKD.DISTANCE_WEIGHT": (True, {"DISTILLER.TYPE": "RKD"}, 2),
    "RKD.ANGLE_WEIGHT": (True, {"DISTILLER.TYPE": "RKD"}, 2),
    "RKD.PDIST.EPSILON": (True, {"DISTILLER.TYPE": "RKD"}, 1e-6),
    "RKD.PDIST.SQUARED": (True, {"DISTILLER.TYPE": "RKD"}, True),
    "KDSVD.K": (True, {"DISTILLER.TYPE": "KDSVD"}, 2),
    "FITNET.HINT_LAYER": (True, {"DISTILLER.TYPE": "FITNET"}, 1),
    **{
        key: (True, {"DISTILLER.TYPE": key.partition(".")[0]}, value)
        for key, value in {
            "VID.EPS": 1e-4,
            "VID.INIT_PRED_VAR": 4,
            "OFD.CONNECTOR.KERNEL_SIZE": 3,
            "CRD.MODE": "relax",
            "CRD.FEAT.DIM": 64,
            "CRD.NCE.K": 100,
            "CRD.NCE.MOMENTUM": 0.9,
            "CRD.NCE.TEMPERATURE": 0.1,
            "REVIEWKD.CE_WEIGHT": 0.5,
            "REVIEWKD.REVIEWKD_WEIGHT": 5,
            "REVIEWKD.WARMUP_EPOCHS": 1,
            "REVIEWKD.MAX_MID_CHANNEL": 256,
            "REVIEWKD.STU_PREACT": True,
        }.items()
    },
    **{
        key: (False, {"DISTILLER.TYPE": key.partition(".")[0]}, value)
        for key, value in {
            "VID.INPUT_SIZE": [64, 64],
            "CRD.FEAT.STUDENT_DIM": 64,
            "CRD.FEAT.TEACHER_DIM": 64,
            "REVIEWKD.SHAPES": [1, 7, 14],
            "REVIEWKD.OUT_SHAPES": [1, 7, 14],
            "REVIEWKD.IN_CHANNELS": [64, 64],
            "REVIEWKD.OUT_CHANNELS": [64, 64],
        }.items()
    },
    "FITNET.INPUT_SIZE": (False, {"DISTILLER.TYPE": "FITNET"}, [64, 64]),
}


def suite_of(folder, text):
    path = folder / "params" / "golden.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return load_suite("golden", folder)


def specification(folder, row, pair=("resnet20", "resnet8"), **sections):
    """The specification of a suite's only student."""
    content = {
        "dataset": "digits",
        "seeds": [0],
        "pairs": [dict(zip(("teacher", "student"), pair, strict=True))],
        "methods": {"row": row},
        **sections,
    }
    return suite_of(folder, yaml.safe_dump(content)).cells[-1].specification


def golden(name="KD+GKD"):
    """A stored specification that has a teacher, a method's parameters and a gradient scaling."""
    return Specification(copy.deepcopy(next(g for g in GOLDEN["specifications"] if g["row"] == name)["specification"]))


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return value


def as_floats(value):
    if isinstance(value, dict):
        return {key: as_floats(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [as_floats(entry) for entry in value]
    return float(value) if type(value) is int else value


# Golden


def test_every_stored_specification_is_another():
    digests = [entry["sha256"] for entry in GOLDEN["specifications"]]
    assert len(digests) > 20 and len(set(digests)) == len(digests)


@pytest.mark.parametrize("entry", GOLDEN["specifications"], ids=lambda entry: entry["id"])
def test_stored_specification_keeps_its_digest_and_id(entry):
    stored = Specification(entry["specification"])
    assert (stored.digest, stored.id) == (entry["sha256"], entry["id"])


@pytest.mark.parametrize("suite", GOLDEN["suites"])
def test_stored_params_resolve_to_the_same_runs(tmp_path, suite):
    entries = [entry for entry in GOLDEN["specifications"] if entry["suite"] == suite]
    runs = suite_of(tmp_path, GOLDEN["suites"][suite]).runs
    stored = {e["id"]: Specification(e["specification"]).canonical for e in entries}
    assert stored and stored == {run: specification.canonical for run, specification in runs.items()}


# Canonical form


@pytest.mark.parametrize("change", [reordered, as_floats])
def test_order_of_keys_and_spelling_of_numbers_do_not_count(change):
    assert Specification(change(golden().data)).digest == golden().digest


@pytest.mark.parametrize("path", NEUTRAL[1], ids=".".join)
def test_key_at_its_neutral_value_is_left_out(path):
    data = golden().data
    node = data
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = NEUTRAL[1][path]
    digest = Specification(data).digest
    del node[path[-1]]
    assert Specification(data).digest == digest
    node[path[-1]] = "another value"
    assert Specification(data).digest != digest


def test_a_parameter_added_later_is_left_out_of_the_digest_at_its_neutral_value_only():
    data = golden().data
    parameters = data["gradient_scaling"]["parameters"]
    assert components.transforms()["GKD"]["keys"]["FACTORS"].neutral == "confidence" and "FACTORS" not in parameters
    parameters["FACTORS"] = "confidence"
    assert Specification(data).id == golden().id
    parameters["FACTORS"] = "shuffled"
    assert Specification(data).id != golden().id


def test_another_version_of_an_optimizer_is_another_run(tmp_path, monkeypatch):
    before = specification(tmp_path, ADAMW)
    assert "version" not in before["schedule"] and before.schedule["version"] == 1
    monkeypatch.setitem(components.optimizers()["AdamW"], "version", 2)
    assert specification(tmp_path, ADAMW)["schedule"]["version"] == 2
    assert specification(tmp_path, ADAMW).id != before.id


def test_swapping_two_values_is_another_run():
    data = golden().data
    parameters = data["method"]["parameters"]
    parameters["TEMPERATURE"], parameters["LOSS.CE_WEIGHT"] = parameters["LOSS.CE_WEIGHT"], parameters["TEMPERATURE"]
    assert parameters["TEMPERATURE"] != parameters["LOSS.CE_WEIGHT"]
    assert Specification(data).id != golden().id


# Keys


def test_table_of_identity_covers_every_key():
    assert IDENTITY.keys() == all_keys().keys()
    assert {key: line[0] for key, line in IDENTITY.items()} == {key: k.identity for key, k in all_keys().items()}


@pytest.mark.parametrize("key", IDENTITY)
def test_key_changes_the_id_if_and_only_if_it_is_identity(tmp_path, key):
    counts, row, value = IDENTITY[key]
    if value is None:
        data = golden().data
        data[row[0]][row[1]] = "other"
        assert Specification(data).id != golden().id
        return
    before = specification(tmp_path, row)
    if key == "DISTILLER.TEACHER":
        after = specification(tmp_path, row, pair=(value, "resnet8"))
    elif key == "DISTILLER.STUDENT":
        after = specification(tmp_path, row, pair=("resnet20", value))
    else:
        after = specification(tmp_path, {**row, key: value})
    assert (before.id != after.id) == counts


def test_editing_the_teacher_renames_its_students_and_not_those_without_it(tmp_path):
    edited = {"teachers": {"SOLVER.EPOCHS": 3}}
    assert specification(tmp_path, KD).id != specification(tmp_path, KD, **edited).id
    alone = {"DISTILLER.TYPE": "NONE"}
    assert specification(tmp_path, alone).id == specification(tmp_path, alone, **edited).id
    best = {"teachers": {"checkpoint": "best"}}
    assert specification(tmp_path, KD).id != specification(tmp_path, KD, **best).id


# Files


def test_written_specification_is_read_back(tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(to_json(golden().as_file()))
    assert read_specification(path) == golden()


def test_edited_specification_is_refused_in_one_line(tmp_path):
    content = golden().as_file()
    content["specification"]["schedule"]["EPOCHS"] += 1
    path = tmp_path / "spec.json"
    path.write_text(to_json(content))
    with pytest.raises(UserError, match="it was edited: change params/ instead and restore this file") as error:
        read_specification(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"specification": 3, "sha256": ""}'])
def test_file_that_is_no_specification_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "spec.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_specification(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


# Declarations


def test_planning_imports_neither_torch_nor_numpy(tmp_path):
    program = (
        "import sys; from distillbench.commands import main; code = main(['plan', 'golden'])\n"
        "sys.exit(code or ', '.join({'torch', 'numpy', 'pandas', 'scipy'} & set(sys.modules)) or 0)"
    )
    suite_of(tmp_path, next(iter(GOLDEN["suites"].values())))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "what, name", [(what, name) for what, kind in KINDS.items() if kind.in_class for name in components.packaged(what)]
)
def test_what_is_declared_is_what_is_implemented(what, name):
    """In every field, of every method, trainer and transform; a class that computes one is refused."""
    implementation, declared = components.implementation(what, name), components.packaged(what)[name]
    assert (implementation.name, implementation.version) == (name, declared["version"])
    for attribute in KINDS[what].fields.keys() - {"needs", "bibtex"}:
        changed = {**declared, attribute: "another"}
        with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match=f"computes its {attribute};"):
            patch.setitem(components.packaged(what), name, changed)
            components.implementation(what, name)


@pytest.mark.parametrize("momentum, delta, version", [(0.4, 0.4, 2), (0, 0, 2), (0.4, 0.3999, 1), (0.9, 0.075, 1)])
def test_dot_that_leaves_the_task_no_momentum_is_another_version(tmp_path, momentum, delta, version):
    keys = {**KD, "SOLVER.TRAINER": "dot", "SOLVER.MOMENTUM": momentum, "SOLVER.DOT.DELTA": delta}
    assert specification(tmp_path, keys)["trainer"]["version"] == version


@pytest.mark.parametrize("zoo, network", [(zoo, name) for zoo, found in components.zoos().items() for name in found])
def test_declared_networks_are_the_implemented_ones(zoo, network):
    declared = components.zoos()[zoo][network]
    family = import_module(f"distillbench.models.{declared['module']}")
    assert declared["module"].startswith(f"{zoo}.") and declared["arguments"] == family.networks[network]
    assert (declared["family"], declared["version"]) == (family.name, family.version)


@pytest.mark.parametrize("name", components.datasets())
def test_declared_dataset_is_the_implemented_one(name):
    declared = components.datasets()[name]
    module = import_module(f"distillbench.data.{declared['module']}")
    for field, rule in KINDS["dataset"].fields.items():
        assert declared[field] == getattr(module, field, rule.default), field


def test_constants_of_datasets_are_the_published_ones():
    """mdistiller's dataset/*.py and torchvision's of CIFAR: another value is another experiment."""
    crop = {"kind": "crop_flip", "crop_padding": 4, "flip": True}
    rotation = {"kind": "rotation_flip", "degrees": 20, "interpolation": "nearest", "flip": True}
    resized = {"kind": "resized_crop_flip", "scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3], "interpolation": "bilinear"}
    published = {
        "cifar10": (10, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), crop),
        "cifar100": (100, 32, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), crop),
        "tiny_imagenet": (200, 64, (0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262), rotation),
        "imagenet": (1000, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), {**resized, "flip": True}),
    }
    for name, values in published.items():
        declared = components.datasets()[name]
        fields = ("num_classes", "image_size", "mean", "std", "augmentation")
        assert tuple(declared[field] for field in fields) == values, name
    assert components.datasets()["cifar10"]["md5"] == CIFAR10.tgz_md5
    assert components.datasets()["cifar100"]["md5"] == CIFAR100.tgz_md5
    assert components.datasets()["tiny_imagenet"]["md5"] == "90528d7ca1a48142e341f4ef8d21d0de"
    imagenet = [components.datasets()["imagenet"][field] for field in DIGESTS]
    assert imagenet[:-1] == [None, None, None, 1_281_167, 50_000] and imagenet[-1].startswith("70002b0ff5de")


@pytest.mark.parametrize("folder", ["methods", "trainers", "transforms"])
def test_a_file_declares_at_most_one_component(folder):
    for path in (components.PACKAGE / folder).rglob("*.py"):
        classes = [n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.ClassDef)]
        named = [c.name for c in classes if any(ast.unparse(n).startswith("name = ") for n in c.body)]
        assert len(named) <= 1, f"{path}: {named}"

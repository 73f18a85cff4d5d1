"""A specification is trained exactly or not at all; what is finished is read whatever made it."""

import copy
import json
import re

import pytest
from standins import TEACHER
from stores import finish_all, new_project, runs

from distillbench.commands import main
from distillbench.config import components
from distillbench.config.implemented import older, require_predictable, require_trainable
from distillbench.config.specification import Specification
from distillbench.errors import UserError
from distillbench.files import to_json
from distillbench.store import Store

KEYS = {"DISTILLER.TYPE": "KD", "GKD.K": 0.5, "SOLVER.TRAINER": "dot"}

# What a specification may say differently and still be trained; everything else in it is what this code does.
FREE = r"seed|precision|threads|batch\.size|teacher\.(id|checkpoint)|schedule\.(?!TYPE)\w+|\w+\.parameters\..*"

# Values that the format has room for and nothing implements, and others that are none at all.
REFUSED = {
    "schema": (2,),
    "task": ("detection", "", None),
    "dataset.name": ("cifar100", "Digits", None),
    "dataset.protocol": ("holdout", {"holdout": 0.1}),
    "views.count": (2, 1.5),
    "views.augmentation": ({"crop_padding": 2, "flip": False}, {"kind": "crop_flip"}, {}),
    "student.network": ("resnet9000", "wrn_16_2x"),
    "student.weights": ("0" * 64,),
    "teacher": (None, {**TEACHER, "kind": "external"}, {**TEACHER, "more": 1}, {"kind": "run"}, [TEACHER]),
    "teacher.checkpoint": ("worst",),
    "method.name": ("CRD", "NONE"),
    "method.source_sha256": ("0" * 64,),
    "gradient_scaling": ({"version": 1, "parameters": {}, "more": 1},),
    "gradient_scaling.parameters.FACTORS": ("reversed",),
    "trainer.name": ("deepkd", "base"),
    "trainer.parameters.DELTA": (0.5, "much"),
    "schedule.TYPE": ("Adam", "sgd"),
    "schedule.LR": (0, -1, "fast", None),
    "schedule.LR_DECAY_STAGES": ([3, 1], ["a"]),
    "batch.statistics": ("local", 1, 2.5, 10**6),
    "seed": (-1, 1.5, "0", True, None),
    "replicate": (1,),
    "precision": ("int8", "fp16", "auto"),
    "threads": (0, "all"),
    "logit_table": ("fp16",),
}


def changed(data, path, value):
    """A copy with another value at a dotted path; the names of parameters have dots of their own."""
    data = copy.deepcopy(data)
    parent, _, leaf = path.partition(".parameters.")
    *parents, last = [*parent.split("."), *(["parameters", leaf] if leaf else [])]
    node = data
    for name in parents:
        node = node[name]
    node[last] = value
    return Specification(data)


def leaves(value, path=""):
    """Every dotted path of a specification, nodes too."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from leaves(entry, f"{path}.{key}" if path else key)


@pytest.fixture(scope="module")
def whole(specify):
    return specify(teacher=TEACHER, **KEYS).data


def test_what_planning_writes_is_trained(whole, specify):
    require_trainable(Specification(whole))
    require_trainable(specify())


def test_every_path_is_free_or_refused(whole):
    """No value of a specification goes unread: a key that is added to it has to be put on one of the two lists."""
    for path in leaves(whole):
        covered = path in REFUSED or re.fullmatch(FREE, path) or any(p.startswith(f"{path}.") for p in leaves(whole))
        assert covered or path.endswith((".version", ".sha256", ".flip", ".crop_padding", ".kind")), path


@pytest.mark.parametrize("path, value", [(p, v) for p, values in REFUSED.items() for v in values], ids=str)
def test_what_this_code_does_not_do_is_refused_in_one_line(whole, path, value):
    specification = changed(whole, path, value)
    with pytest.raises((UserError, KeyError, TypeError)) as error:  # of an id that cannot even be built
        specification.id  # noqa: B018
        require_trainable(specification)
    assert error.type is not UserError or "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["views", "method", "trainer", "schedule", "batch", "gradient_scaling"])
@pytest.mark.parametrize("value", [3, [1], "text", True], ids=str)
def test_a_section_of_another_type_is_named(whole, path, value):
    for place in (path, *([f"{path}.parameters"] if "parameters" in whole[path] else [])):
        data = copy.deepcopy(whole)
        (data[path] if place != path else data)[place.rpartition(".")[2]] = value
        with pytest.raises((UserError, TypeError)) as error:  # of an id that cannot even be built
            specification = Specification(data)
            specification.id  # noqa: B018
            require_trainable(specification)
        assert error.type is TypeError or f": {place}: {value!r}" in str(error.value)


@pytest.mark.parametrize(
    "path", ["batch.size", "threads", "schedule.EPOCHS", "schedule.LR", "method.parameters.WARMUP"]
)
def test_a_number_beyond_what_can_be_computed_with_is_named(whole, path):
    with pytest.raises(UserError, match="out of range"):
        require_trainable(changed(whole, path, 1e39))


def test_other_versions_and_digests_are_refused(whole):
    for path in leaves(whole):
        if path.endswith(("version", "sha256")):
            node = whole
            for name in path.split("."):
                node = node[name]
            with pytest.raises(UserError, match=re.escape(f"{path}: ")):
                require_trainable(changed(whole, path, node + 1 if isinstance(node, int) else "f" * 64))


def test_an_unknown_key_at_any_level_is_refused(whole):
    for path in ["", *leaves(whole)]:
        node = data = copy.deepcopy(whole)
        for name in path.split(".") if path and ".parameters." not in path else ():
            node = node[name]
        if isinstance(node, dict):
            node["surprise"] = 1
            with pytest.raises(UserError, match="surprise"):
                require_trainable(Specification(data))


def test_a_missing_key_is_refused_unless_it_is_neutral(whole):
    for path in leaves(whole):
        if ".parameters." in path:
            continue
        data = copy.deepcopy(whole)
        node = data
        *parents, last = path.split(".")
        for name in parents:
            node = node[name]
        del node[last]
        if path in {declared["place"] for declared in components.transforms().values()}:
            data, as_none = Specification(data), Specification({**data, path: None})
            assert data.id == as_none.id  # the run without the transform, as written before there was any
            continue
        try:
            same = Specification(data).id == Specification(whole).id
        except (KeyError, TypeError):
            continue  # not even readable
        if not same:
            with pytest.raises(UserError):
                require_trainable(Specification(data))


def test_every_difference_between_ids_is_a_difference_in_training(whole):
    """Text, float or bool where a number belongs make another digest, so they may not train the same weights."""
    for path, value in (("batch.size", "128"), ("schedule.EPOCHS", "2"), ("threads", 1.5)):
        specification = changed(whole, path, value)
        assert specification.digest != Specification(whole).digest
        with pytest.raises(UserError, match="(?i)" + path.split(".")[-1]):
            require_trainable(specification)


@pytest.mark.parametrize("path", ["threads", "batch.size", "schedule.EPOCHS", "seed"])
def test_a_number_of_another_type_with_the_same_digest_is_refused(whole, path):
    """RFC 8785 writes 1.0 as 1; torch does not take it for one."""
    node = whole
    for name in path.split("."):
        node = node[name]
    specification = changed(whole, path, float(node))
    assert specification.digest == Specification(whole).digest
    with pytest.raises(UserError, match=path.split(".")[-1]):
        require_trainable(specification)


@pytest.mark.parametrize(
    "path, value",
    [(p, v) for p in ("task", "dataset.name", "dataset.protocol", "student.network", "precision") for v in REFUSED[p]]
    + [("dataset.sha256", "0" * 64), ("dataset.version", 2), ("student.version", 7)],
    ids=str,
)
def test_predicting_asks_for_task_dataset_split_precision_and_network(whole, path, value):
    specification = changed(whole, path, value)
    with pytest.raises((UserError, TypeError)):
        specification.id  # noqa: B018
        require_predictable(specification)


def test_predicting_names_the_dataset_that_is_not_known_before_its_networks(whole):
    with pytest.raises(UserError, match=r"dataset: unknown name 'other'"):
        require_predictable(changed(whole, "dataset.name", "other"))


def test_predicting_does_not_ask_how_the_weights_were_made(whole):
    for path, value in (("method.version", 7), ("trainer.version", 7), ("schedule.TYPE", "Adam"), ("replicate", 1)):
        require_predictable(changed(whole, path, value))
    data = copy.deepcopy(whole)
    data["method"] = {"name": "of somebody else", "version": 3, "parameters": {}, "source_sha256": "0" * 64}
    require_predictable(Specification(data))


@pytest.mark.parametrize(
    "edit, says",
    [
        (lambda content: content.update(device="cuda"), "device"),
        (lambda content: content["source"].update(notes=[], rows=1), "source.rows"),
        (lambda content: content.update(id="digits/resnet8/none/s0-000000000000"), "id"),
        (lambda content: content["specification"].update(replicate=1), "digest"),
        (lambda content: content["specification"].update(schema=2), "schema"),
        *((lambda content, value=value: content.update(source=value), "source: ") for value in (3, True, 1.5, [], "a")),
        (lambda content: content["source"].update(method_file=3), "source.method_file"),
        (lambda content: content["source"].update(method_file=[None]), "source.method_file"),
        (lambda content: content["source"].update(row=["KD"]), "source.row"),
        (lambda content: content["source"].update(notes="a note"), "source.notes"),
    ],
)
def test_a_file_with_more_than_a_specification_is_refused(specify, tmp_path, monkeypatch, capsys, edit, says):
    monkeypatch.chdir(tmp_path)
    content = {**specify().as_file(), "source": {"file": "params/small.yaml", "row": "NONE"}}
    edit(content)
    (tmp_path / "spec.json").write_text(to_json(content))
    assert main(["train", "--spec", "spec.json", "--out", "out", "--device", "cpu"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "spec.json" in lines[0] and says in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_raised_version_takes_no_finished_run_out_of_what_is_read(tmp_path, monkeypatch, capsys):
    new_project(tmp_path)
    finish_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = runs(tmp_path)["KD/s1"]
    index = (tmp_path / "results/suites/small/index.csv").read_text()
    assert main(["export", "small", "--out", "small.tar"]) == 0
    monkeypatch.setitem(components.networks("digits")["resnet8"], "version", 2)
    assert main(["evaluate", run, "--stage", "metrics"]) == 0
    capsys.readouterr()
    assert main(["ls"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(run))
    assert "50.00" in line and "student 1 (now 2)" in line
    assert main(["show", run]) == 0 and "student 1 (now 2)" in capsys.readouterr().out
    assert main(["import", "small.tar"]) == 0
    assert f"already here {run}  (older code: student 1 (now 2))" in capsys.readouterr().out
    assert main(["collect", "small", "--out", "collected"]) == 0
    assert run in (tmp_path / "results/suites/small/index.csv").read_text() == index
    assert run in (tmp_path / "collected/metrics.csv").read_text()
    assert f"warning: {run}: older code: student 1 (now 2)" in capsys.readouterr().err
    assert main(["status", "small"]) == 0 and f"code changed since {run.rpartition('/')[2]}" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"student.version: 1 is asked for, this code does 2"):
        require_trainable(Store().specification(run))
    assert json.loads((Store().run(run) / "spec.json").read_text())["specification"]["student"]["version"] == 1


def test_an_optimizer_of_another_version_is_told(specify, monkeypatch):
    """And neither is trained in the place of the other."""
    first = specify(SOLVER__TYPE="AdamW", SOLVER__LR=0.001)
    monkeypatch.setitem(components.optimizers()["AdamW"], "version", 2)
    second = specify(SOLVER__TYPE="AdamW", SOLVER__LR=0.001)
    assert (older(first), older(second)) == (["optimizer 1 (now 2)"], [])
    require_trainable(second)
    with pytest.raises(UserError, match=r"schedule.version is missing; this code would train with 2"):
        require_trainable(first)


@pytest.mark.parametrize("momentum, version, other", [(0.4, 2, 1), (0.9, 1, 2)])
def test_dot_is_trained_in_the_version_that_its_values_have(specify, momentum, version, other):
    """Where DELTA is the whole momentum that is version 2, and a run of version 1 is older."""
    keys = {"DISTILLER.TYPE": "KD", "SOLVER.TRAINER": "dot", "SOLVER.MOMENTUM": momentum}
    keys["SOLVER.DOT.DELTA"] = 0.4 if version == 2 else 0.05
    specification = specify(teacher=TEACHER, **keys)
    require_trainable(specification)
    assert specification["trainer"]["version"] == version and not older(specification)
    wrong = changed(specification.data, "trainer.version", other)
    with pytest.raises(UserError, match=rf"trainer.version: {other} is asked for, this code does {version}"):
        require_trainable(wrong)
    assert older(wrong) == [f"trainer {other} (now {version})"]

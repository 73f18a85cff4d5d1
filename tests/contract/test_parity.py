"""This code gives the official code's numbers."""

import json
import os
import shutil

import numpy as np
import pytest
from standins import FIXTURES

from distillbench.checks.parity.cases import Mismatch, compare
from distillbench.commands import main

OWN_COPY = FIXTURES / "reference"


def test_agrees_with_the_projects_copy_of_the_reference_vectors(capsys):
    assert main(["parity", str(OWN_COPY)]) == 0
    assert ", 0 differ, 0 not covered yet" in capsys.readouterr().out


@pytest.mark.skipif("DISTILLBENCH_REFERENCE" not in os.environ, reason="DISTILLBENCH_REFERENCE names no folder")
def test_agrees_with_the_full_reference_vectors(capsys):
    assert main(["parity", os.environ["DISTILLBENCH_REFERENCE"]]) == 0
    assert "not covered yet: losses of" not in capsys.readouterr().out


def test_a_wrong_number_is_reported_and_fails(tmp_path, capsys):
    case = tmp_path / "losses" / "KD"
    shutil.copytree(OWN_COPY / "losses" / "KD", case)
    with np.load(case / "random10.npz") as archive:
        arrays = dict(archive)
    arrays["grad.kd.logits_student"] = arrays["grad.kd.logits_student"] * (1 + 1e-6)
    np.savez(case / "random10.npz", **arrays)
    assert main(["parity", str(tmp_path)]) == 1
    assert "DIFFERS  losses/KD/random10.json: grad.kd" in capsys.readouterr().out


def test_what_is_not_covered_is_said(tmp_path, capsys):
    shutil.copytree(OWN_COPY / "losses" / "KD", tmp_path / "losses" / "NOVEL")
    assert main(["parity", str(tmp_path)]) == 1
    assert "not covered yet: losses of NOVEL" in capsys.readouterr().out


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    assert main(["parity", str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# Files that are something else


def sample(folder, case="losses/KD/random10", /, **changes):
    """A copy of one case; changes go into its description. Returns the description's path."""
    path = folder / f"{case}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for source in OWN_COPY.glob(f"{case}.*"):
        shutil.copy(source, path.parent)
    if changes:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def arrays_of(name):
    path = OWN_COPY / f"{name}.npz"
    return dict(np.load(path)) if path.exists() else {}


def with_arrays(change):
    def damage(path):
        with np.load(path.with_suffix(".npz")) as archive:
            arrays = dict(archive)
        change(arrays)
        np.savez(path.with_suffix(".npz"), **arrays)

    return damage


def with_text(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def described(change):
    def edit(text):
        description = json.loads(text)
        change(description)
        return json.dumps(description).encode()

    return with_text(edit)


def replaced_by_folder(path):
    path.unlink()
    (path / "within").mkdir(parents=True)


def linked_to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


def test_a_folder_without_vectors_says_what_one_is(tmp_path, capsys):
    assert main(["parity", str(tmp_path)]) == 1
    assert "NAME.json" in capsys.readouterr().out


GRADIENT = "grad.kd.logits_student"
DAMAGES = {
    "an empty file": (with_text(lambda text: b""), "not readable as JSON"),
    "a truncated description": (with_text(lambda text: text[:200]), "not readable as JSON"),
    "bytes that are no text": (with_text(lambda text: b"\xff\xfe" + text), "not readable as JSON"),
    "brackets without end": (with_text(lambda text: b"[" * 100_000), "not readable as JSON"),
    "a list": (with_text(lambda text: b"[1, 2]"), "holds a list"),
    "a number": (with_text(lambda text: b"1"), "holds a int"),
    "another project's file": (with_text(lambda text: b'{"name": "x"}'), "has no 'dtype'"),
    "no hyperparameters": (described(lambda d: d.pop("hyperparameters")), "has no 'hyperparameters'"),
    "a list of hyperparameters": (described(lambda d: d.update(hyperparameters=[4])), "not a case of this format"),
    "text for epochs": (described(lambda d: d.update(epochs="all")), "states epochs all, its arrays have none"),
    "no arrays": (lambda path: path.with_suffix(".npz").unlink(), "its arrays are missing, batch1.npz"),
    "empty arrays": (lambda path: path.with_suffix(".npz").write_bytes(b""), "batch1.npz is not readable"),
    "truncated arrays": (
        lambda path: os.truncate(path.with_suffix(".npz"), 700),
        "batch1.npz is not readable",
    ),
    "pickled arrays": (with_arrays(lambda a: a.update({GRADIENT: np.array([{}])})), "batch1.npz is not readable"),
    "arrays of text": (with_arrays(lambda a: a.update(more=np.array(["a"]))), "batch1.npz: more holds <U1"),
    "an array less": (with_arrays(lambda a: a.pop(GRADIENT)), f"has no '{GRADIENT}'"),
    "another shape": (with_arrays(lambda a: a.update({GRADIENT: a[GRADIENT][:, 1:]})), f"{GRADIENT} is float64 [1, "),
    "another type": (
        with_arrays(lambda a: a.update({GRADIENT: a[GRADIENT].astype("float32")})),
        f"{GRADIENT} is float32",
    ),
    "NaN that nothing states": (with_arrays(lambda a: a[GRADIENT].fill(np.nan)), "not finite"),
    "a folder": (replaced_by_folder, "is no plain file"),
    "a link to itself": (linked_to_itself, "is no plain file"),
}


@pytest.mark.parametrize("damage, says", DAMAGES.values(), ids=DAMAGES)
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_compared(tmp_path, capsys, damage, says):
    sample(tmp_path, "losses/KD/random10"), sample(tmp_path, "losses/GradientKD/batch1")
    damage(sample(tmp_path, "losses/KD/batch1"))
    assert main(["parity", str(tmp_path)]) == 1
    output = capsys.readouterr()
    (line,) = [line for line in output.out.splitlines() if line.startswith("UNREADABLE")]
    assert line.startswith("UNREADABLE losses/KD/batch1.json: ") and says in line
    assert output.out.splitlines()[-1].startswith("2 agree, 0 differ, 0 not covered yet")
    assert output.out.endswith(", 1 unreadable\n") and not output.err


PARTS = {
    "losses_integration/resnet8__resnet20/KD": ["student", "teacher_fill", "image", "epochs"],
    "models/cifar__resnet8.parity": ["name", "fill", "train", "eval"],
    "models/cifar__resnet8.structure": ["state_dict", "num_classes", "feats_shapes"],
    "optim/given_partial": ["optimizer", "dtype", "hyperparameters"],
    "optim/lr_schedule_cifar_lr0.05": ["epochs", "lr", "lr_per_epoch"],
    "configs/mdistiller/cifar100__ofd": ["resolved"],
    "configs/mdistiller/_defaults": ["resolved"],
}


@pytest.mark.parametrize("value", ["absent", None, [], "x"], ids=str)
@pytest.mark.parametrize("name, key", [(name, key) for name, keys in PARTS.items() for key in keys])
def test_a_description_without_what_its_part_needs_agrees_with_nothing(tmp_path, capsys, name, key, value):
    path = sample(tmp_path, name, **{key: value})
    if value == "absent":
        described(lambda d: d.pop(key))(path)
    assert main(["parity", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert output.out.count(f"{name}.json") == 1 and "0 agree" in output.out and not output.err


CONFIGURED = {  # a value that is another here, one that is none of ours
    "configs/mdistiller/_defaults": ("SOLVER", {"LR": 0.1}, "SOLVER.LR: 0.05, reference 0.1"),
    "configs/GKD/_defaults": ("KD", {"TEMPERATURE": 4}, "KD.TEMPERATURE: 1.0, reference 4"),
    "configs/GKD/imagenet__r34_r18__dot": ("KD", {"TEMPERATURE": "1"}, "KD.TEMPERATURE: 1.0, reference '1'"),
}


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_configuration_that_is_read_otherwise_is_a_difference(tmp_path, capsys, name):
    node, value, says = CONFIGURED[name]
    path = sample(tmp_path, name)
    assert main(["parity", str(tmp_path)]) == 0
    described(lambda d: d["resolved"][node].update(value))(path)
    assert main(["parity", str(tmp_path)]) == 1
    assert f"DIFFERS  {name}.json: {says}" in capsys.readouterr().out
    described(lambda d: d["resolved"][node].update(NOVEL=1))(path)
    assert main(["parity", str(tmp_path)]) == 1
    assert f"not covered yet {name}.json: key {node}.NOVEL" in capsys.readouterr().out


def test_a_published_feature_that_a_network_lacks_is_a_difference(tmp_path, capsys):
    path = sample(tmp_path, "models/cifar__resnet8.parity")
    described(lambda d: d["eval"]["feats"].update({"feats.9": d["eval"]["feats"]["feats.0"]}))(path)
    assert main(["parity", str(tmp_path)]) == 1
    assert "DIFFERS  models/cifar__resnet8.parity.json: features: there is no feats.9" in capsys.readouterr().out


def test_half_of_a_trajectory_is_incomplete(tmp_path, capsys):
    path = sample(tmp_path, "optim/given_partial")
    with_arrays(lambda a: a.update({name: array[:6] for name, array in a.items()}))(path)
    assert main(["parity", str(tmp_path)]) == 1
    assert "UNREADABLE optim/given_partial.json" in capsys.readouterr().out


def test_arrays_without_a_description_are_named(tmp_path, capsys):
    sample(tmp_path), sample(tmp_path, "losses/KD/batch1").unlink()
    assert main(["parity", str(tmp_path)]) == 1
    assert "UNREADABLE losses/KD/batch1.npz: has no .json beside it" in capsys.readouterr().out


def test_damage_is_named_in_what_is_not_covered_too(tmp_path, capsys):
    sample(tmp_path), sample(tmp_path, "losses/KD/batch1")
    (tmp_path / "losses/KD/batch1.npz").write_bytes(b"PK")
    shutil.move(tmp_path / "losses/KD/batch1.json", tmp_path / "losses/NOVEL.json")
    shutil.move(tmp_path / "losses/KD/batch1.npz", tmp_path / "losses/NOVEL.npz")
    assert main(["parity", str(tmp_path)]) == 1
    assert "UNREADABLE losses/NOVEL.json: NOVEL.npz is not readable" in capsys.readouterr().out


def test_a_folder_that_is_a_link_is_compared_and_a_circle_ends(tmp_path, capsys):
    sample(tmp_path / "there")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/losses").symlink_to(tmp_path / "there/losses")
    (tmp_path / "there/losses/again").symlink_to(tmp_path / "there/losses")
    assert main(["parity", str(tmp_path / "here")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 agree, 0 differ, 0 not covered")


def test_a_record_of_the_official_codes_error_is_nothing_to_compare(tmp_path, capsys):
    sample(tmp_path)
    path = tmp_path / "losses_integration/resnet8__vgg8/KD.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"method": "KD", "npz": "KD.npz", "error": "AttributeError: no such\nlayer"}))
    assert main(["parity", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert (
        "nothing to compare losses_integration/resnet8__vgg8/KD.json: the official code failed (error: Attrib" in output
    )
    assert "1 agree, 0 differ, 0 not covered yet, 1 with nothing to compare, 0 unreadable" in output


NO_RECORDS = {
    "a key that denies it": {"no_error": True},
    "a deviation": {"max_error": 1e-9},
    "a blank text": {"error": " "},
    "a list": {"failures": ["w1"]},
    "arrays that are stated": {"error": "AttributeError", "arrays": {"out.loss_kd": {"shape": [], "dtype": "float64"}}},
    "numbers of a model": {"error": "AttributeError", "eval": {"feats": {}}},
}


@pytest.mark.parametrize("record", NO_RECORDS.values(), ids=NO_RECORDS)
def test_only_a_text_without_numbers_records_an_error_of_the_official_code(tmp_path, capsys, record):
    sample(tmp_path)
    path = tmp_path / "losses_integration/resnet8__resnet20/KD.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"method": "KD"} | record))
    assert main(["parity", str(tmp_path)]) == 1
    assert "1 agree, 0 differ, 0 not covered yet, 0 with nothing to compare, 1 unreadable" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["losses/KD/batch1", *PARTS])
def test_a_case_that_lost_its_arrays_is_no_record_of_an_error(tmp_path, capsys, name):
    path = sample(tmp_path, name, error="AttributeError: no such layer")
    path.with_name(f"{path.stem}.npz").unlink(missing_ok=True)
    main(["parity", str(tmp_path)])
    assert ", 0 with nothing to compare" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["optim/lr_schedule_cifar_lr0.05", "models/cifar__resnet8.structure"])
def test_a_case_without_arrays_by_nature_is_compared_whatever_error_it_tells_of(tmp_path, capsys, name):
    path = sample(tmp_path, name, error="AttributeError: no such layer")
    assert main(["parity", str(tmp_path)]) == 0
    assert "1 agree" in capsys.readouterr().out
    path.write_text(json.dumps({"error": "AttributeError: no such layer"}))
    assert main(["parity", str(tmp_path)]) == 1
    assert f"UNREADABLE {name}.json" in capsys.readouterr().out


OVERFLOW = "the official loss overflows: inf and NaN"


def test_overflow_that_a_case_states_is_no_difference_and_not_counted(tmp_path, capsys):
    path = sample(tmp_path, notes=OVERFLOW)
    with_arrays(lambda a: a[GRADIENT].fill(np.nan))(path)
    assert main(["parity", str(tmp_path)]) == 0
    assert "agrees   losses/KD/random10.json (7 arrays; 1 without a finite number)" in capsys.readouterr().out


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_case_of_nothing_but_overflow_is_nothing_to_compare(tmp_path, capsys, value):
    path = sample(tmp_path, description="extreme logits")
    with_arrays(lambda a: [a[name].fill(value) for name in a if not name.startswith("in.")])(path)
    assert main(["parity", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "0 agree, 0 differ, 0 not covered yet, 1 with nothing to compare" in output.out and not output.err


@pytest.mark.parametrize(
    "ours, reference, agree",
    [
        ([1.0, 2.0], [np.nan, 2.0], True),
        ([np.nan, 2.0], [np.nan, 2.0], True),
        ([np.inf, 2.0], [np.inf, 2.0], True),
        ([-np.inf, 2.0], [np.inf, 2.0], False),
        ([np.inf, 2.0], [np.nan, 2.0], False),
        ([np.nan, 2.0], [np.inf, 2.0], False),
        ([np.nan, 2.0], [1.0, 2.0], False),
        ([1.0, 3.0], [np.nan, 2.0], False),
    ],
)
def test_where_the_reference_overflows_ours_is_finite_or_the_same(ours, reference, agree):
    if agree:
        assert compare("x", ours, reference, (1e-9, 0.0), overflow=True)
    else:
        with pytest.raises(Mismatch, match="x: "):
            compare("x", ours, reference, (1e-9, 0.0), overflow=True)


def test_an_array_without_a_finite_number_is_not_compared():
    assert not compare("x", [1.0], [np.nan], (1e-9, 0.0), overflow=True)


STATED_STEPS = [1, 9, 11, 0, True, 10.0, "10", [], None]


@pytest.mark.parametrize("name", ["given_partial", "mlp_ce_kd", "sgd_momentum"])
@pytest.mark.parametrize("steps", STATED_STEPS, ids=repr)
def test_a_number_of_steps_that_is_not_the_arrays_is_unreadable(tmp_path, capsys, name, steps):
    sample(tmp_path, f"optim/{name}", steps=steps)
    assert main(["parity", str(tmp_path)]) == 1
    assert f"UNREADABLE optim/{name}.json: states steps {steps!r}, its arrays hold 10" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["given_partial", "mlp_ce_kd", "sgd_momentum"])
@pytest.mark.parametrize("length", [6, 12])
@pytest.mark.parametrize("kind", ["param.w1", "momentum_buffer.w1", "grad"])
def test_a_trajectory_whose_arrays_differ_in_length_is_unreadable(tmp_path, capsys, name, length, kind):
    path = sample(tmp_path, f"optim/{name}")
    described(lambda d: (d.pop("steps", 0), d.pop("arrays", 0)))(path)

    def cut(arrays):
        for array in [array for array in arrays if array.startswith(kind)]:
            arrays[array] = np.resize(arrays[array], (length, *arrays[array].shape[1:]))

    with_arrays(cut)(path)
    assert main(["parity", str(tmp_path)]) == 1
    assert "0 agree" in capsys.readouterr().out


@pytest.mark.parametrize("epochs", [[], [1], [1, 10, 20], None, True, "1"], ids=repr)
@pytest.mark.parametrize("name", ["losses/DKD/random10", "losses_integration/resnet8__resnet20/DKD"])
def test_epochs_that_are_not_the_arrays_are_unreadable(tmp_path, capsys, name, epochs):
    sample(tmp_path, name, epochs=epochs)
    assert main(["parity", str(tmp_path)]) == 1
    assert f"UNREADABLE {name}.json: states epochs {epochs}, its arrays have [1, " in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, array",
    [
        *(("losses/KD/random10", array) for array in ("out.extra", "grad.extra", "out.raw.dkd", "in.logits_other")),
        ("losses_integration/resnet8__resnet20/KD", "out.loss_feature"),
        ("models/cifar__resnet8.parity", "eval.first16.feats.9"),
        ("models/cifar__resnet8.structure", "state_dict"),
        ("optim/lr_schedule_cifar_lr0.05", "lr_per_step"),
        *(("optim/given_partial", array) for array in ("out.extra", "grad.extra", "grad_kd.w9", "momentum_buffer.w9")),
    ],
)
def test_an_array_that_no_check_reads_is_named(tmp_path, capsys, name, array):
    path = sample(tmp_path, name)
    np.savez(path.with_name(f"{path.stem}.npz"), **arrays_of(name), **{array: np.zeros(10)})
    assert main(["parity", str(tmp_path)]) == 1
    assert f"not covered yet {name}.json: array {array}\n" in capsys.readouterr().out


@pytest.mark.parametrize("spoilt", [False, True])
def test_descent_without_momentum_has_no_buffer(tmp_path, capsys, spoilt):
    path = sample(tmp_path, "optim/sgd_momentum", hyperparameters={"lr": 0.05, "momentum": 0.0, "weight_decay": 5e-4})

    def descend(arrays):
        del arrays["momentum_buffer.w1"]
        weights = arrays["param.w1"]
        for step, gradient in enumerate(arrays["grad.w1"]):
            weights[step + 1] = weights[step] - 0.05 * (gradient + 5e-4 * weights[step])
        weights[-1] += spoilt

    with_arrays(descend)(path)
    assert main(["parity", str(tmp_path)]) == spoilt
    assert ("DIFFERS" if spoilt else "agrees") in capsys.readouterr().out


EVERY_KIND = [
    "losses/KD/random10",
    "losses/GradientKD/mixed",
    "losses/DKD_GKD/two_classes",
    "losses/NST/teacher_larger",
    "losses/FitNet/f32",
    "losses/OFD/teacher_larger_maps",
    "losses_integration/resnet8__resnet20/KD",
    "models/cifar__resnet8.parity",
    "optim/mlp_ce_kd",
    "optim/given_partial",
    "optim/sgd_momentum",
]


@pytest.mark.parametrize("name", EVERY_KIND)
def test_the_number_is_that_of_the_arrays_whose_change_would_be_seen(tmp_path, capsys, name):
    arrays, seen = arrays_of(name), 0
    given = ("in.", "module.", "aux.", "has_", "lr")
    given += () if "mlp" in name else ("grad.", "grad_") if "optim" in name else ()
    path = sample(tmp_path, name)
    assert main(["parity", str(tmp_path)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("agrees")]
    for array in arrays:
        if not array.startswith(given):
            changed = arrays | {array: np.array(arrays[array], ndmin=1)}
            changed[array][-1:] += 1
            changed[array] = changed[array].reshape(arrays[array].shape)
            np.savez(path.with_name(f"{path.stem}.npz"), **changed)
            main(["parity", str(tmp_path)])
            seen += f"DIFFERS  {name}.json: {array}" in capsys.readouterr().out
    assert line.endswith(f" ({seen} arrays)") and seen


def test_a_parameter_that_has_a_gradient_here_only_is_a_difference(tmp_path, capsys):
    path = sample(tmp_path, "losses_integration/resnet8__resnet20/AT")
    with_arrays(lambda a: a["grad_l2.kd"][:1].fill(np.nan))(path)
    assert main(["parity", str(tmp_path)]) == 1
    assert "AT.json: grad_l2.kd: another parameter has no gradient than in the reference" in capsys.readouterr().out


def test_modules_of_another_form_are_a_difference(tmp_path, capsys):
    path = sample(tmp_path, "losses/FitNet/f32", arrays=None)
    with_arrays(lambda a: a.update({"module.conv_reg.conv.more": np.zeros(1)}))(path)
    assert main(["parity", str(tmp_path)]) == 1
    assert "DIFFERS  losses/FitNet/f32.json: modules: " in capsys.readouterr().out


HYPERPARAMETERS = {"lr": 0.05, "momentum": 0.9, "delta": 0.075, "weight_decay": 0.0005}
UNREACHABLE = {
    "dampening": ("optim/given_partial", HYPERPARAMETERS | {"dampening": 0.1}, "dampening"),
    "nesterov": ("optim/given_partial", HYPERPARAMETERS | {"nesterov": True}, "nesterov"),
    "two momenta": ("optim/given_partial", HYPERPARAMETERS | {"momentum_kd": 0.99}, "momentum_kd"),
    "a momentum of 1": ("optim/given_partial", HYPERPARAMETERS | {"momentum": 1.0}, "SOLVER.DOT.DELTA"),
    "no key of the method": ("losses/KD/random10", {"TEMPERATURE": 4, "LOGIT_STAND": True}, "KD.LOGIT_STAND"),
    "no node of the method": ("losses/KD/random10", {"EXPERIMENT": {"LOGIT_STAND": True}}, "KD.EXPERIMENT"),
    "a temperature of 0": ("losses/DKD/random10", {"T": 0}, "DKD.T"),
}


@pytest.mark.parametrize("name, hyperparameters, says", UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_setting_that_no_configuration_can_reach_is_not_covered(tmp_path, capsys, name, hyperparameters, says):
    sample(tmp_path, "losses/KD/batch1")
    sample(tmp_path, name, hyperparameters=hyperparameters)
    assert main(["parity", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "1 agree, 0 differ, 1 not covered yet" in output
    (line,) = [line for line in output.splitlines() if line.startswith(f"not covered yet {name}.json: setting ")]
    assert says in line


@pytest.mark.parametrize("more", [{"warmup_epochs": 20}, {"schedule": "cosine"}, {"lr_cos": True}], ids=str)
def test_a_schedule_that_no_configuration_can_reach_is_not_covered(tmp_path, capsys, more):
    sample(tmp_path), sample(tmp_path, "optim/lr_schedule_cifar_lr0.05", **more)
    assert main(["parity", str(tmp_path)]) == 0
    assert f"setting {next(iter(more))}" in capsys.readouterr().out


def test_a_setting_that_changes_nothing_is_covered(tmp_path, capsys):
    unused = {"dampening": 0, "nesterov": False, "maximize": None}
    sample(tmp_path, "optim/given_partial", hyperparameters=HYPERPARAMETERS | unused)
    assert main(["parity", str(tmp_path)]) == 0


@pytest.mark.parametrize("case", ["given_momentum_is_delta_partial", "given_partial"])
def test_a_buffer_that_the_official_code_has_not_is_a_difference(tmp_path, capsys, case):
    path = sample(tmp_path, f"optim/{case}")
    with_arrays(lambda a: np.logical_not(a["has_momentum_buffer.b1"], out=a["has_momentum_buffer.b1"]))(path)
    assert main(["parity", str(tmp_path)]) == 1
    assert f"DIFFERS  optim/{case}.json: momentum_buffer.b1[1]: " in capsys.readouterr().out


@pytest.mark.parametrize("case", ["losses/VID/mismatch", "losses/CRD/no_negatives_repeated_K4"])
def test_modules_that_are_not_those_of_the_official_code_are_a_difference(tmp_path, capsys, case):
    path = sample(tmp_path, case)
    described(lambda d: d.pop("arrays"))(path)
    name = next(name for name in arrays_of(case) if name.startswith("module.") and name.endswith("weight"))
    with_arrays(lambda a: a.pop(name))(path)
    assert main(["parity", str(tmp_path)]) == 1
    assert f"DIFFERS  {case}.json: modules: {name.removeprefix('module.')} " in capsys.readouterr().out
    with_arrays(lambda a: a.update({name: arrays_of(case)[name], "module.another": np.zeros(3)}))(path)
    assert main(["parity", str(tmp_path)]) == 1
    assert f"DIFFERS  {case}.json: modules: another " in capsys.readouterr().out


def test_the_calls_of_a_case_follow_each_other(tmp_path, capsys):
    """What the first leaves in the memory the second begins with."""
    case = "losses/CRD/temperature0.1_momentum0.9"
    path = sample(tmp_path, case)
    with_arrays(lambda a: np.add(a["step1.before.contrast.memory_v1"], 1, out=a["step1.before.contrast.memory_v1"]))(
        path
    )
    assert main(["parity", str(tmp_path)]) == 1
    assert f"DIFFERS  {case}.json: step1.before.contrast.memory_v1: off by " in capsys.readouterr().out


def test_variances_that_are_not_nearly_those_of_a_case_are_a_difference(tmp_path, capsys):
    path = sample(tmp_path, "losses/VID/mismatch")
    with_arrays(lambda a: np.multiply(a["aux.pred_var.1"], 1.001, out=a["aux.pred_var.1"]))(path)
    assert main(["parity", str(tmp_path)]) == 1
    assert "DIFFERS  losses/VID/mismatch.json: aux.pred_var.1: off by " in capsys.readouterr().out

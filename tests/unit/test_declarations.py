"""Files of the package that declare badly: one line that names the file and the attribute, in every command."""

import shutil
from pathlib import Path

import pytest
import stores

from distillbench.commands import main
from distillbench.config import components, schema
from distillbench.config.implemented import older, require_trainable
from distillbench.config.kinds import KINDS
from distillbench.config.specification import NEUTRAL, Specification
from distillbench.config.suite import load_suite
from distillbench.errors import UserError
from distillbench.reporting.evidence import references
from distillbench.reporting.figure_names import figures_of

FILES = {
    "methods/kd.py": "KD",
    "trainers/dot.py": "dot",
    "data/digits.py": "digits",
    "models/cifar/resnet.py": "resnet",
    "transforms/gkd.py": "GKD",
}
CACHED = (components.packaged, components.packaged_methods, components.transforms, components.aliases, components.zoos)
CACHED += (components.datasets, schema.base_keys, schema.all_keys)
COMMANDS = (["plan", "small"], ["status", "small"], ["tables", "small"], ["explain", "small", "KD"])


def forget():
    for function in CACHED:
        function.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's components, in place of the package, and a project that uses them."""
    for kind in KINDS.values():
        shutil.copytree(components.PACKAGE / kind.folder, tmp_path / kind.folder)
    stores.new_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(components, "PACKAGE", tmp_path)
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


def edited(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def refused(capsys, *parts, commands=COMMANDS):
    for command in commands:
        assert main(command) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and err.startswith("distillbench: "), err
        assert all(str(part) in err for part in parts), err


def test_the_copy_is_as_good_as_the_package(package, capsys):
    for command in COMMANDS:
        assert main(command) == 0


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "old, new, attribute",
    [
        ("version = 1", "version = 1 + 1", "version"),
        ("version = 1", "version = int('1')", "version"),
        ("version = 1", "version: int = 1 + 1", "version"),
        ("version = 1", "version = 1\n{indent}version += 1", "version"),
        ("version = 1", "version = 0\n{indent}version = 1", "version"),
        ("version = 1", "if True:\n{indent}    version = 1", "version"),
        ("version = 1", "version, _ = 1, 2", "version"),
        ('name = "{name}"', 'name: str = str("{name}")', "name"),
        ('name = "{name}"', 'name = str("{name}")', "name"),
        ('name = "{name}"', 'name = OTHER = "{name}"', "name"),
    ],
    ids=str,
)
def test_a_computed_name_or_version_is_one_line(package, capsys, file, old, new, attribute):
    indent = "" if file.startswith(("data", "models")) else "    "
    line = indent + old.format(name=FILES[file]) + "\n"
    edited(package / file, line, indent + new.format(name=FILES[file], indent=indent) + "\n")
    refused(capsys, package / file, f"{attribute} must be a literal")


@pytest.mark.parametrize(
    "file, old, new, says",
    [
        ("methods/kd.py", "    keys = {", "    keys = dict() | {", "keys must be a literal"),
        ("methods/kd.py", "Key(4.0,", "Key(2 * 2.0,", "keys must be a literal"),
        ("methods/kd.py", 'teacher = "logits"', 'teacher = "Logits"', "teacher must be none, logits or network"),
        ("methods/kd.py", 'teacher = "logits"', 'needs = ("teacher",)', "needs must be one of"),
        ("methods/kd.py", 'teacher = "logits"', 'teacher = "logits"\n    needs = ()', "needs says what teacher says"),
        ("methods/kd.py", "version = 1", "version = 1\n    capturable = 1", "capturable must be True or False"),
        ("methods/kd.py", "version = 1", 'version = 1\n    node = "K D"', "node must be the node of its keys"),
        ("methods/kd.py", 'temperature = "TEMPERATURE"', 'temperature = "T"', "temperature must be the name of one"),
        ("methods/kd.py", "Key(4.0,", "Key(-4.0,", "key TEMPERATURE: the default: -4.0 is out of range"),
        ("methods/kd.py", "above=0, gkd=1.0)", "abov=0)", "Key(...)"),
        ("methods/kd.py", '    name = "KD"\n', "", "declares no method"),
        ("methods/kd.py", "class KD(LogitMethod):", "class KD(LogitMethod:", "line "),
        ("methods/kd.py", "class KD(", "class B:\n    name = 1\n    version = 1\n\n\nclass KD(", "declares 2 methods"),
        ("trainers/dot.py", 'node = "SOLVER.DOT"', 'node = ".".join(["SOLVER", "DOT"])', "node must be a lit"),
        ("trainers/dot.py", '    node = "SOLVER.DOT"\n', "", "node must be the node of its keys"),
        ("trainers/dot.py", "two_losses = True", "two_losses = not False", "two_losses must be a literal"),
        ("trainers/dot.py", 'margin = "DELTA"', 'margin = "DELTAS"', "margin must be the name of one of"),
        ("data/digits.py", 'sha256 = "', 'sha256 = str() + "', "sha256 must be a literal"),
        ("data/digits.py", 'sha256 = "', 'sha256 = "x', "sha256 must be a digest"),
        ("data/digits.py", "num_classes = 10", "num_classes = len(range(10))", "num_classes must be a literal"),
        ("data/digits.py", "num_classes = 10", "from math import pi as num_classes", "num_classes is missing"),
        ("data/digits.py", "image_size = 16", "image_size = 16.0", "image_size must be a positive integer"),
        ("data/digits.py", "mean = (0.3056, 0.3056, 0.3056)", "mean = 3 * (0.3056,)", "mean must be a literal"),
        ("data/digits.py", "std = (0.3760, 0.3760, 0.3760)", "std = 0.3760", "std must be three numbers"),
        ("data/digits.py", '"crop_padding": 4, ', "", "augmentation must be a mapping like"),
        ("data/digits.py", "version = 1\n", "", "declares no dataset"),
        ("models/cifar/resnet.py", "networks = {", "networks = {} | {", "networks must be a literal"),
        ("models/cifar/resnet.py", '{"depth": 8, "widths": (16, 16, 32, 64)}', "8", "networks must be a mapping of"),
        ("transforms/gkd.py", "    keys = {", "    keys = dict() | {", "keys must be a literal"),
        ("transforms/gkd.py", '    name = "GKD"\n', "", "declares no transform"),
        ("transforms/gkd.py", 'place = "gradient_scaling"', "place = 1", "place must be a text of letters"),
        ("transforms/gkd.py", '    node = "GKD"\n', "", "node is missing"),
        ("transforms/gkd.py", 'label = "gkd"', 'label = "G"', "label must be lower-case letters"),
        ("transforms/gkd.py", '"defaults": "gkd",', "", "aliases must be a mapping like"),
        ("transforms/gkd.py", '"method": "KD"', '"method": "CRD"', "must stand for a method that there is"),
        ("transforms/gkd.py", '"WARMUP": Key(20,', '"WARM": Key(20,', "must stand for a method that there is"),
        ("transforms/gkd.py", '"GradientKD": {', '"DKD": {', "aliases: DKD: the name is taken"),
        ("transforms/gkd.py", '"WARMUP": Key(20,', '"WARMUP": Key(-1,', "key WARMUP: the default: -1 is out of range"),
        ("transforms/gkd.py", 'place = "gradient_scaling"', 'place = "scaling"', 'write ("scaling",): None in NEUTRAL'),
        ("data/digits.py", 'zoo = "cifar"\n', "", "zoo is missing"),
        ("data/cifar10.py", 'md5 = "', 'md5 = "x', "md5 must be a digest of 32 hex digits"),
        ("data/imagenet.py", "num_test = ", "number = ", "sha256 is missing, and so are md5, files_sha256, num_test"),
        ("data/cifar10.py", '"kind": "crop_flip"', '"kind": "crop"', "must be of one of the kinds crop_flip, rotation"),
        ("data/imagenet.py", "[0.08, 1.0]", "[0.08]", "augmentation must be a mapping like"),
        ("data/imagenet.py", '"bilinear"', "2", "augmentation must be a mapping like"),
    ],
)  # fmt: skip
def test_a_declaration_that_is_computed_missing_or_wrong_is_one_line(package, capsys, file, old, new, says):
    edited(package / file, old, new)
    refused(capsys, package / file, says)


@pytest.mark.parametrize("file", FILES)
def test_a_name_that_two_files_declare_is_one_line_with_both(package, capsys, file):
    (folder := (package / file).parent / "zz_folder").mkdir()
    other = shutil.copy(package / file, folder / "other.py")
    refused(capsys, package / file, other, FILES[file], "choose another")


def test_a_network_of_two_families_is_one_line_with_both(package, capsys):
    other = Path(shutil.copy(package / "models/cifar/resnet.py", package / "models/cifar/zz_other.py"))
    edited(other, 'name = "resnet"', 'name = "other"')
    refused(capsys, package / "models/cifar/resnet.py", other, "resnet8", "choose another")


def test_two_zoos_may_have_different_networks_of_one_name(package, capsys):
    """That of a dataset's zoo is planned, with its family's version; a pair of another zoo is one line."""
    (package / "models/large/deep").mkdir(parents=True)
    other = Path(shutil.copy(package / "models/cifar/resnet.py", package / "models/large/deep/resnet.py"))
    edited(other, "version = 1", "version = 3")
    edited(other, '"resnet20": {"depth": 20', '"resnet21": {"depth": 20')
    edited(package / "data/imagenet.py", 'zoo = "imagenet"', 'zoo = "large"')
    assert components.networks("digits")["resnet8"]["version"] == 1
    assert components.networks("imagenet")["resnet8"]["version"] == 3
    assert components.networks("imagenet")["resnet8"]["module"] == "large.deep.resnet"
    for dataset, version in (("digits", 1), ("imagenet", 3)):
        stores.new_project(Path(), stores.SUITE.replace("digits", dataset).replace("resnet20", "resnet14"))
        students = {cell.specification["student"]["version"] for cell in load_suite("small").cells}
        assert students == {version}
    Path("params/small.yaml").write_text(stores.SUITE.replace("resnet20", "resnet21"))
    line = "small.yaml: pairs[0].teacher: resnet21 is no network for digits; valid: MobileNetV2, ResNet18, "
    refused(capsys, line, "wrn_40_2", commands=[["plan", "small"]])
    edited(package / "data/tiny_imagenet.py", 'zoo = "tiny_imagenet"', 'zoo = "empty"')
    forget()
    Path("params/small.yaml").write_text(stores.SUITE.replace("digits", "tiny_imagenet"))
    refused(capsys, "there are no networks for tiny_imagenet yet", commands=[["plan", "small"]])


PAIRS = {
    ("tiny_imagenet", "vgg8"): "MobileNetV2, ResNet18, ShuffleV2",
    ("imagenet", "MobileNetV2"): "MobileNetV1, ResNet101, ResNet18, ResNet34, ResNet50",
    ("cifar100", "ResNet34"): "MobileNetV2, ResNet18, ResNet50, ShuffleV1, ShuffleV2, resnet110, resnet14, resnet20, ",
}


@pytest.mark.parametrize("side", ["teacher", "student"])
@pytest.mark.parametrize("dataset, network", PAIRS)
def test_a_network_of_another_dataset_is_one_line_with_those_that_there_are(package, capsys, side, dataset, network):
    pair = {"teacher": "ResNet18", "student": "ResNet18"} | {side: network}
    suite = stores.SUITE.replace("teacher: resnet20", "teacher: " + pair["teacher"])
    suite = suite.replace("student: resnet8", "student: " + pair["student"]).replace("digits", dataset)
    Path("params/small.yaml").write_text(suite)
    line = f"pairs[0].{side}: {network} is no network for {dataset}; valid: {PAIRS[dataset, network]}"
    refused(capsys, line, commands=[["plan", "small"]])


def test_a_family_outside_of_a_zoo_is_one_line(package, capsys):
    (package / "models/cifar/wrn.py").rename(package / "models/wrn.py")
    refused(capsys, package / "models/wrn.py", "belongs to no zoo", commands=[["plan", "small"]])


METHOD = """\
class M:
    name: str = "{name}"
    version: int = 1
    node = "{node}"
    teacher: str = "logits"
    keys = {keys}
"""


def test_a_file_is_found_in_a_folder_below_and_its_annotated_declaration_is_read(package):
    (package / "methods/more/kinds").mkdir(parents=True)
    path = package / "methods/more/kinds/m.py"
    path.write_text(METHOD.format(name="M", node="M", keys='{"A": Key(1, "a")}'))
    declared = components.methods()["M"]
    assert (declared["module"], declared["teacher"], declared["class"]) == ("more.kinds.m", "logits", "M")
    assert "M.A" in schema.all_keys()


def test_a_package_is_a_component(package):
    """A task is a folder with files of its own."""
    (package / "tasks/zz").mkdir(parents=True)
    (package / "tasks/zz/__init__.py").write_text('name = "counting"\nversion = 1\nheadline = "mae"\n')
    (package / "tasks/zz/metrics.py").write_text("def mae():\n    pass\n")
    counting = components.tasks()["counting"]
    assert (counting["module"], counting["headline"]) == ("zz", "mae")


def test_methods_that_share_a_node_have_the_same_keys(package, capsys):
    key = 'Key(4.0, "softens both distributions", above=0, gkd=1.0)'
    path = package / "methods/m.py"
    path.write_text(METHOD.format(name="M", node="KD", keys=f'{{"TEMPERATURE": {key}, "MORE": Key(1, "")}}'))
    Path("params/small.yaml").write_text(stores.SUITE.replace("DISTILLER.TYPE: KD", "DISTILLER.TYPE: M, KD.MORE: 2"))
    assert main(["plan", "small"]) == 0
    (cell, *_) = (cell for cell in load_suite("small").cells if cell.role == "distilled")
    assert cell.specification["method"]["parameters"] == {"TEMPERATURE": 4.0, "MORE": 2}
    capsys.readouterr()
    forget()
    path.write_text(METHOD.format(name="M", node="KD", keys=f'{{"TEMPERATURE": {key.replace("4.0", "3.0")}}}'))
    refused(capsys, path, package / "methods/kd.py", "KD.TEMPERATURE is another key", "write the same Key(...) in both")


TRANSFORM = """\
class Shift:
    name = "SHIFT"
    version = 1
    place = "logit_shift"
    node = "LOGIT.SHIFT"
    label = "shifted"
    order = 20
    keys = {keys}
"""


@pytest.mark.parametrize("keys", ["{}", '{"BY": Key(1.0, "what is added")}'])
def test_a_transform_is_a_file(package, capsys, monkeypatch, keys):
    """A row that has its node is transformed, also if it has no keys; no run without it gets another id."""
    before = [cell.specification.id for cell in load_suite("small").cells]
    forget()
    (package / "transforms/shift.py").write_text(TRANSFORM.format(keys=keys))
    refused(capsys, "shift.py: place: write (", commands=[["plan", "small"]])
    monkeypatch.setitem(NEUTRAL[1], ("logit_shift",), None)
    assert [cell.specification.id for cell in load_suite("small").cells] == before
    Path("params/small.yaml").write_text(stores.SUITE + "  both: {like: KD, GKD: {}, LOGIT.SHIFT: {}}\n")
    assert main(["plan", "small"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and notes[0].startswith("note: both: has no control")
    *_, cell = load_suite("small").cells
    specification = cell.specification
    assert specification["logit_shift"] == {"version": 1, "parameters": {"BY": 1.0} if "BY" in keys else {}}
    assert list(specification.transforms) == ["GKD", "SHIFT"] and specification.method_label == "kd+gkd+shifted"
    assert references(specification)["logit shift SHIFT"] == ""
    require_trainable(specification)
    later = Specification(specification.data | {"logit_shift": {"version": 2, "parameters": {}}})
    assert older(later) == ["logit_shift 2 (now 1)"]
    assert figures_of([specification], False) == ["accuracy", "curves", "scale", "gradients"]
    Path("params/small.yaml").write_text(stores.SUITE.replace("TYPE: NONE", "TYPE: NONE, LOGIT.SHIFT: {}"))
    refused(capsys, "methods.NONE.LOGIT.SHIFT: NONE has no loss on", "remove LOGIT.SHIFT", commands=[["plan", "small"]])


def test_two_transforms_have_two_places(package, capsys):
    path = package / "transforms/shift.py"
    path.write_text(TRANSFORM.format(keys="{}").replace("logit_shift", "gradient_scaling"))
    refused(capsys, path, package / "transforms/gkd.py", "the place gradient_scaling is declared in")
    path.write_text(TRANSFORM.format(keys="{}").replace("order = 20", "order = 10"))
    forget()
    refused(capsys, path, package / "transforms/gkd.py", "the order 10 is declared in")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            'place = "logit_shift"',
            'place = "teacher"',
            "place must be a text of letters, digits and _, and none of schema",
        ),
        ('node = "LOGIT.SHIFT"', 'node = "KD"', "the node KD is that of"),
    ],
)
def test_a_transform_takes_nothing_that_is_something_else(package, capsys, old, new, says):
    (package / "transforms/shift.py").write_text(TRANSFORM.format(keys="{}").replace(old, new))
    refused(capsys, "shift.py", says, commands=[["plan", "small"]])


def test_transforms_are_applied_in_the_order_that_they_declare(package, monkeypatch):
    monkeypatch.setitem(NEUTRAL[1], ("logit_shift",), None)
    path = package / "transforms/shift.py"
    for order, names in ((20, ["GKD", "SHIFT"]), (1, ["SHIFT", "GKD"])):
        path.write_text(TRANSFORM.format(keys="{}").replace("order = 20", f"order = {order}"))
        forget()
        assert list(components.transforms()) == names


def test_a_figure_that_there_is_not_is_one_line_before_anything_is_trained(package, capsys, monkeypatch):
    monkeypatch.setitem(NEUTRAL[1], ("logit_shift",), None)
    text = TRANSFORM.format(keys="{}").replace("order = 20", 'order = 20\n    figure = "nope"')
    (package / "transforms/shift.py").write_text(text)
    forget()
    Path("params/small.yaml").write_text(stores.SUITE + "  both: {like: KD, LOGIT.SHIFT: {}}\n")
    (cell,) = [cell for cell in load_suite("small").cells if cell.row == "both" and cell.seed == 0]
    with pytest.raises(UserError, match=r"shift\.py: figure: there is no nope\.py in reporting/figures"):
        figures_of([cell.specification], False)


def test_a_file_that_is_not_utf8_is_one_line(package, capsys):
    (package / "methods/kd.py").write_bytes(b"# \xff\n")
    refused(capsys, package / "methods/kd.py", "not readable as Python")


def test_a_file_without_a_declaration_is_no_component(package, capsys):
    (package / "methods/zz_helpers.py").write_text("WEIGHT = 1\n\n\nclass Helper:\n    text = ''\n")
    (package / "data/zz_helpers.py").write_text(
        "from typing import NamedTuple\n\n\nclass Split(NamedTuple):\n    name: str\n"
    )
    for command in COMMANDS:
        assert main(command) == 0

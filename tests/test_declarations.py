"""Files of the package that declare badly: one line that names the file and the attribute, in every command."""

import shutil
from pathlib import Path

import pytest
import stores

from distillbench.commands import main
from distillbench.config import components, schema

FILES = {
    "methods/kd.py": "KD",
    "engine/trainers/dot.py": "dot",
    "data/digits.py": "digits",
    "models/resnet.py": "resnet",
    "gradient_scaling.py": "GKD",
}
CACHED = (components.packaged_methods, components.trainers, components.datasets, components.networks)
CACHED += (components.gradient_scaling, schema.base_keys, schema.method_keys, schema.trainer_keys)
CACHED += (schema.scaling_keys, schema.all_keys)
COMMANDS = (["plan", "small"], ["status", "small"], ["tables", "small"], ["explain", "small", "KD"])


def forget():
    for function in CACHED:
        function.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's components, in place of the package, and a project that uses them."""
    for file in FILES:
        folder = (components.PACKAGE / file).parent
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        for path in [components.PACKAGE / file] if folder == components.PACKAGE else folder.glob("*.py"):
            shutil.copy(path, (tmp_path / file).parent)
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
        ("version = 1", "version: int = 1", "version"),
        ("version = 1", "version = 1\n{indent}version += 1", "version"),
        ("version = 1", "version = 0\n{indent}version = 1", "version"),
        ("version = 1", "if True:\n{indent}    version = 1", "version"),
        ("version = 1", "version, _ = 1, 2", "version"),
        ('name = "{name}"', 'name: str = "{name}"', "name"),
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
        ("methods/kd.py", 'needs = ("teacher_logits",)', 'needs = ("teacher",)', "needs must be one of"),
        ("methods/kd.py", 'temperature = "TEMPERATURE"', 'temperature = "T"', "temperature must be the name of one"),
        ("methods/kd.py", "Key(4.0,", "Key(-4.0,", "key TEMPERATURE: the default: -4.0 is out of range"),
        ("methods/kd.py", "above=0, gkd=1.0)", "abov=0)", "Key(...)"),
        ("methods/kd.py", '    name = "KD"\n', "", "declares no method"),
        ("methods/kd.py", "class KD(LogitMethod):", "class KD(LogitMethod:", "line "),
        ("methods/kd.py", "class KD(", "class B:\n    name = 1\n    version = 1\n\n\nclass KD(", "declares 2 methods"),
        ("engine/trainers/dot.py", 'node = "SOLVER.DOT"', 'node = ".".join(["SOLVER", "DOT"])', "node must be a lit"),
        ("engine/trainers/dot.py", '    node = "SOLVER.DOT"\n', "", "node must be the node of its keys"),
        ("engine/trainers/dot.py", "two_losses = True", "two_losses = not False", "two_losses must be a literal"),
        ("engine/trainers/dot.py", 'margin = "DELTA"', 'margin = "DELTAS"', "margin must be the name of one of"),
        ("data/digits.py", 'sha256 = "', 'sha256 = str() + "', "sha256 must be a literal"),
        ("data/digits.py", 'sha256 = "', 'sha256 = "x', "sha256 must be a digest"),
        ("data/digits.py", "num_classes = 10", "num_classes = len(range(10))", "num_classes must be a literal"),
        ("data/digits.py", "num_classes = 10", "from math import pi as num_classes", "num_classes is missing"),
        ("data/digits.py", "image_size = 16", "image_size = 16.0", "image_size must be a positive integer"),
        ("data/digits.py", "mean = (0.3056, 0.3056, 0.3056)", "mean = 3 * (0.3056,)", "mean must be a literal"),
        ("data/digits.py", "std = (0.3760, 0.3760, 0.3760)", "std = 0.3760", "std must be three numbers"),
        ("data/digits.py", '"crop_padding": 4, ', "", "augmentation must be a mapping like"),
        ("data/digits.py", "version = 1\n", "", "declares no dataset"),
        ("models/resnet.py", "networks = {", "networks = {} | {", "networks must be a literal"),
        ("models/resnet.py", '{"depth": 8, "widths": (16, 16, 32, 64)}', "8", "networks must be a mapping of"),
        ("gradient_scaling.py", "    keys = {", "    keys = dict() | {", "keys must be a literal"),
        ("gradient_scaling.py", '    name = "GKD"\n    version = 1\n', "", "declares no gradient scaling"),
    ],
)  # fmt: skip
def test_a_declaration_that_is_computed_missing_or_wrong_is_one_line(package, capsys, file, old, new, says):
    edited(package / file, old, new)
    refused(capsys, package / file, says)


@pytest.mark.parametrize("file", [file for file in FILES if "/" in file])
def test_a_name_that_two_files_declare_is_one_line_with_both(package, capsys, file):
    other = shutil.copy(package / file, (package / file).with_name("zz_other.py"))
    refused(capsys, package / file, other, FILES[file], "choose another")


def test_a_network_of_two_families_is_one_line_with_both(package, capsys):
    other = Path(shutil.copy(package / "models/resnet.py", package / "models/zz_other.py"))
    edited(other, 'name = "resnet"', 'name = "other"')
    refused(capsys, package / "models/resnet.py", other, "resnet8", "choose another")


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

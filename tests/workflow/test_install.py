"""The way in: pinned versions, `tools/bootstrap.py` and the Makefile. Nothing here installs a package."""

import ast
import os
import platform
import runpy
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from standins import ROOT

import distillbench

BOOTSTRAP = ROOT / "tools" / "bootstrap.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PYTHONS = ("3.11", "3.12", "3.13")


def pins_of(lines) -> dict[str, str]:
    pairs = [line.strip().split("==") for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


PINS = pins_of((ROOT / "constraints.txt").read_text().splitlines())
DEPENDENCIES = [Requirement(text) for text in PROJECT["dependencies"]]
TEST_DEPENDENCIES = [Requirement(text) for text in PROJECT["optional-dependencies"]["test"]]


# Versions


@pytest.mark.parametrize("requirement", DEPENDENCIES + TEST_DEPENDENCIES, ids=str)
def test_direct_dependency_is_pinned_within_its_range(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_conda_environment_has_the_same_pins():
    (pip,) = [item["pip"] for item in ENVIRONMENT["dependencies"] if isinstance(item, dict)]
    assert pins_of(pip) == {name: PINS[name] for name in (canonicalize_name(r.name) for r in DEPENDENCIES)}


def test_pinned_versions_run_on_every_supported_python():
    installed = {canonicalize_name(found.name): found for found in metadata.distributions()}
    pinned = [found for name, found in installed.items() if found.version == PINS.get(name)]
    assert pinned
    for found in pinned:
        supported = SpecifierSet(found.metadata["Requires-Python"] or "")
        assert all(supported.contains(python) for python in PYTHONS), found.name


def test_bootstrap_and_pyproject_name_the_same_pythons():
    names = runpy.run_path(str(BOOTSTRAP))
    supported = SpecifierSet(PROJECT["requires-python"])
    minors = [minor for minor in range(30) if supported.contains(f"3.{minor}")]
    assert [f"3.{minor}" for minor in minors] == list(PYTHONS)
    assert (names["OLDEST"], names["NEWEST"]) == ((3, minors[0]), (3, minors[-1]))


def test_version_is_the_same_everywhere():
    assert CITATION["version"] == distillbench.__version__


# tools/bootstrap.py

SIMULATE = """
import runpy, shutil, sys
from collections import namedtuple
free = 1e12
{patch}
shutil.disk_usage = lambda path: namedtuple("Usage", "free")(free)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
THIS_PYTHON = "{}.{}".format(*sys.version_info)
FAKE_PYTHON = """#!/bin/sh
case "$1 $2" in
    "-m "*) shift; echo "$@" >> "$CALLS"; exit "$PIP_EXIT_CODE" ;;
    "-c import pip") exit 0 ;;
    "-c "*) echo {version} ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "check out"
    (folder / "tools").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "tools/bootstrap.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def environment(checkout):
    return make_environment(checkout / "my env", THIS_PYTHON)


def make_environment(folder, version):
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(FAKE_PYTHON.format(version=version))
    python.chmod(0o755)
    return folder


def bootstrap(checkout, venv, patch="", pip_exit_code=0):
    """Run the script, return its process and the `python -m` commands of the fake environment so far."""
    calls = checkout.parent / "calls"
    done = subprocess.run(
        [sys.executable, "-c", SIMULATE.format(patch=patch), checkout / "tools" / "bootstrap.py", venv],
        env=os.environ | {"CALLS": str(calls), "PIP_EXIT_CODE": str(pip_exit_code)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, calls.read_text().splitlines() if calls.exists() else []


def assert_refused(done, *words):
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_bootstrap_parses_on_old_pythons():
    source = BOOTSTRAP.read_bytes().decode("ascii")
    tree = ast.parse(source, feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.YieldFrom, ast.Nonlocal, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        assert not isinstance(node, newer), f"line {node.lineno}"
        assert not (isinstance(node, ast.Raise) and node.cause), f"line {node.lineno}"
        assert not (isinstance(node, ast.FunctionDef) and (node.returns or node.args.kwonlyargs)), node.name
        assert not (isinstance(node, ast.arg) and node.annotation), node.arg


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 10, 14), (3, 14, 0)])
def test_python_out_of_range_is_refused_with_one_line(checkout, environment, version):
    done, calls = bootstrap(checkout, environment, f"sys.version_info = {(*version, 'final', 0)}")
    found = ".".join(map(str, version))
    assert_refused(done, "Python 3.11 to 3.13", f"is {found}:", "make PYTHON=python3.12")
    assert calls == []


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_python_without_venv_is_told_which_package_to_install(checkout, missing):
    patch = f"""
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == {missing!r} else find_spec(name)
"""
    done, _ = bootstrap(checkout, checkout / "new", patch)
    assert_refused(done, f"apt install python{THIS_PYTHON}-venv")
    assert not (checkout / "new").exists()


def test_too_little_disk_is_refused_before_anything_is_written(checkout):
    done, _ = bootstrap(checkout, checkout / "new", "free = 1.2e9")
    assert_refused(done, str(checkout), "1.2 GB free", "VENV=DIR")
    assert not (checkout / "new").exists()


def test_environment_that_has_torch_needs_no_room_for_another(checkout, environment):
    (environment / "lib" / "python3" / "site-packages" / "torch").mkdir(parents=True)
    done, calls = bootstrap(checkout, environment, "free = 1.2e9")
    assert done.returncode == 0, done.stderr
    assert len(calls) == 1


def test_environment_without_python_is_refused(checkout, environment):
    (environment / "bin" / "python").unlink()
    done, _ = bootstrap(checkout, environment)
    assert_refused(done, str(environment), "not a working virtual environment", "remove it")


def test_environment_whose_python_is_gone_is_refused(checkout, environment):
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to("/nonexistent/python3")
    done, _ = bootstrap(checkout, environment)
    assert_refused(done, str(environment), "not a working virtual environment", "remove it")


def test_environment_of_another_python_is_refused(checkout):
    done, calls = bootstrap(checkout, make_environment(checkout / "old", "3.9"))
    assert_refused(done, f"made with Python 3.9 and this is Python {THIS_PYTHON}", "remove it")
    assert calls == []


def test_new_environment_is_made_and_then_filled(checkout):
    patch = """
import subprocess
subprocess.check_call = lambda command, **_: print(*command[1:])
"""
    venv = checkout / "new env"
    venv.mkdir()  # for the stamp; an empty folder counts as missing
    done, _ = bootstrap(checkout, venv, patch)
    assert done.returncode == 0, done.stderr
    announcement, _, made, got_pip, installed = done.stdout.splitlines()
    assert announcement.startswith("Installing") and str(venv) in announcement
    assert made == f"-m venv --without-pip {venv}"
    assert got_pip == "-m ensurepip --default-pip"
    assert "--constraint constraints.txt --editable .[test]" in installed


def test_second_time_is_silent_and_calls_no_pip(checkout, environment):
    done, calls = bootstrap(checkout, environment)
    assert done.returncode == 0, done.stderr
    assert str(environment) in done.stdout
    (call,) = calls
    assert "--constraint constraints.txt --editable .[test]" in call

    again, calls = bootstrap(checkout, environment)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(calls) == 1


def test_empty_name_means_the_active_environment(checkout, environment):
    patch = f"sys.prefix, sys.executable = {str(environment)!r}, {str(environment / 'bin' / 'python')!r}"
    for _ in range(2):
        done, calls = bootstrap(checkout, "", patch)
        assert done.returncode == 0, done.stderr
        assert len(calls) == 1


def test_empty_name_without_an_active_environment_is_refused(checkout, environment):
    python = environment / "bin" / "python"
    patch = f"sys.prefix = sys.base_prefix = {str(environment)!r}; sys.executable = {str(python)!r}"
    done, calls = bootstrap(checkout, "", patch)
    assert_refused(done, "VENV= means the active environment", "activate one")
    assert calls == []

    (environment / "conda-meta").mkdir()
    done, calls = bootstrap(checkout, "", patch)
    assert done.returncode == 0, done.stderr
    assert len(calls) == 1


@pytest.mark.parametrize("change", ["pyproject.toml", "constraints.txt", "location", "Python"])
def test_installs_again_when_something_changed(checkout, environment, change):
    bootstrap(checkout, environment)
    patch = ""
    if change == "location":
        checkout = checkout.rename(checkout.with_name("elsewhere"))
        environment = checkout / environment.name
    elif change == "Python":
        patch = f"import platform; platform.python_version = lambda: '{platform.python_version()}.1'"
    else:
        with open(checkout / change, "a") as file:
            file.write("# changed\n")
    done, calls = bootstrap(checkout, environment, patch)
    assert done.returncode == 0, done.stderr
    assert len(calls) == 2


def test_failed_installation_is_one_line_and_is_resumed(checkout, environment):
    done, calls = bootstrap(checkout, environment, pip_exit_code=1)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "pip failed" in done.stderr

    done, calls = bootstrap(checkout, environment)
    assert done.returncode == 0, done.stderr
    assert len(calls) == 2


# Makefile

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
BOOTSTRAP_COMMAND = 'tools/bootstrap.py "{venv}"'


def make(*arguments, folder=ROOT):
    inherited = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "VENV", "PYTHON", "JOBS")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    done = subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_make
@pytest.mark.parametrize("venv", ["", "x"])
def test_make_demo_installs_runs_and_shows_the_table(venv):
    first, *rest = make("-n", "demo", f"VENV={venv}")
    assert first.endswith(BOOTSTRAP_COMMAND.format(venv=venv))
    assert rest == [
        "snakemake --profile profiles/local --config suite=demo --quiet rules",
        "python -m distillbench tables demo",
    ]


@needs_make
@pytest.mark.parametrize("venv", ["", "x"])
def test_make_test_installs_and_runs_pytest(venv):
    first, *rest = make("-n", "test", f"VENV={venv}", "JOBS=3")
    assert first.endswith(BOOTSTRAP_COMMAND.format(venv=venv))
    assert rest == ["python -m pytest -n 3 --dist worksteal tests"]


@needs_make
def test_commands_come_from_the_environment_even_with_a_space_in_its_name(tmp_path):
    folder = tmp_path / "check out"
    python = folder / "my env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "from the environment: $@"\n')
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", folder)
    for venv in ("my env", folder / "my env"):
        lines = make("test", f"VENV={venv}", "PYTHON=true", "JOBS=1", folder=folder)
        assert lines[-1] == "from the environment: -m pytest -n 1 --dist worksteal tests"


@needs_make
@pytest.mark.parametrize("home, kept", [("/proc/nobody", False), (".", True)], ids=["none", "some"])
def test_what_make_starts_has_a_home_and_a_name(home, kept, tmp_path):
    python = tmp_path / "env/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$HOME $LOGNAME"\n')
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    bare = ("env", "-u", "LOGNAME", "-u", "MAKELEVEL", "-u", "MAKEFLAGS", f"HOME={home}")  # as if not below make
    bare += ("make", "test", "VENV=env", "PYTHON=true", "JOBS=1")
    done = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, check=True)
    found, name = done.stdout.splitlines()[-1].split(" ")
    assert found == (home if kept else f"{tmp_path}/.home") and name


@needs_make
def test_make_without_a_target_lists_the_targets():
    text = "\n".join(make())
    assert all(f"make {target:7} " in text for target in ("help", "env", "demo", "test", "lint", "mutants", "clean"))


def test_makefile_names_the_default_environment_once():
    lines = [line for line in (ROOT / "Makefile").read_text().splitlines() if ".venv" in line]
    assert lines == ["VENV ?= .venv"]

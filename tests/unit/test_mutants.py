"""The list of deliberate breakages fits the code, and the tool that tries them says what it found."""

import re
import subprocess
import sys

import pytest
from standins import ROOT

SUM = (
    'def total(values):\n    """Of numbers."""\n    return sum(values)\n\n\ndef size(values):\n    return len(values)\n'
)
TESTS = "from distillbench.sums import {}\n\n\ndef test_it():\n    assert {}([2, 3]) == {}\n"
MUTANT = {
    "file": "src/distillbench/sums.py",
    "function": "total",
    "old": "sum(values)",
    "new": "max(values)",
    "falsifies": "the total",
    "tests": ["tests/test_total.py"],
}
SIZE = {**MUTANT, "function": "size", "old": "len(values)", "new": "2", "tests": ["tests/test_size.py::test_it"]}


@pytest.fixture
def project(tmp_path):
    """A project of one module, of which a test says what its functions return for [2, 3]."""
    for folder in ("src/distillbench", "tests", "tools"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "src/distillbench/__init__.py").touch()
    (tmp_path / "src/distillbench/sums.py").write_text(SUM)
    (tmp_path / "tests/test_total.py").write_text(TESTS.format("total", "total", 5))
    (tmp_path / "tests/test_size.py").write_text(TESTS.format("size", "size", 2))
    (tmp_path / "notes.md").write_text("These are sum(values).")
    tool = re.sub(r"^PRELOADED = .*", "PRELOADED = ()", (ROOT / "tools/mutants.py").read_text(), flags=re.MULTILINE)
    (tmp_path / "tools/mutants.py").write_text(tool)
    return tmp_path


def tried(project, *mutants, patterns=()):
    """(exit code, lines of output, error) with a list of mutants."""
    blocks = ("\n".join(["[[mutant]]", *(f"{key} = {value!r}" for key, value in m.items())]) for m in mutants)
    (project / "tests/mutants.toml").write_text("\n\n".join(blocks))
    before = {path: path.read_bytes() for path in (project / "src").rglob("*.py")}
    command = [sys.executable, "tools/mutants.py", *patterns]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120)
    assert before == {path: path.read_bytes() for path in (project / "src").rglob("*.py")}
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_every_mutant_of_the_project_fits_the_code_and_names_tests_that_exist():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import mutants
    finally:
        sys.path.pop(0)
    found = mutants.read_list()
    assert len(found) >= 100
    for test in {test for mutant in found for test in mutant.tests}:
        file, _, name = test.partition("::")
        assert not name or f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(), test


def test_a_noticed_mutant_names_the_test_and_a_survivor_fails(project):
    code, lines, _ = tried(project, MUTANT)
    assert (code, lines[-1]) == (0, "1 mutants, 1 noticed, 0 survived")
    assert any(line.startswith("noticed") and "the total" in line and "tests/test_total.py" in line for line in lines)
    code, lines, _ = tried(project, MUTANT, SIZE)
    assert (code, lines[-1]) == (1, "2 mutants, 1 noticed, 1 survived")
    assert {"  - len(values)", "  + 2", "  tests: tests/test_size.py::test_it"} <= set(lines)
    assert tried(project, MUTANT, SIZE, patterns=["sums.py total"])[0] == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"old": "sum(value)"}, "occurs 0 times"),
        ({"function": "size"}, "occurs 0 times"),
        ({"function": "", "old": "(values)"}, "occurs 4 times"),
        ({"function": "mean"}, "0 functions or classes are called mean"),
        ({"new": "sum(values))"}, "syntax error"),
        ({"new": "sum( values )"}, "changes nothing"),
        ({"old": '"""Of numbers."""', "new": '"""Of numbers."""  # !'}, "changes nothing"),
        ({"file": "src/distillbench/products.py"}, "no such file"),
        ({"file": "notes.md"}, "the file is no Python"),
        ({"test": ["tests/test_total.py"]}, "`test`"),
        ({"falsifies": ""}, "`falsifies`"),
        ({"tests": [7]}, "`tests`"),
        ({"tests": ["tests/test_mean.py"]}, "tests/test_mean.py"),
        ({"tests": ["tests/test_total.py::test_mean"]}, "test_mean"),
    ],
)
def test_a_mutant_that_does_not_fit_is_one_line(project, change, says):
    code, _, error = tried(project, {**MUTANT, **change})
    assert code == 2 and error.count("\n") == 1 and says in error


def test_tests_that_fail_already_or_test_another_copy_are_one_line(project):
    (project / "tests/test_size.py").write_text(TESTS.format("size", "size", 3))
    code, _, error = tried(project, MUTANT, SIZE)
    assert code == 2 and error.count("\n") == 1 and "tests/test_size.py: fails without any change" in error
    elsewhere = f"import sys\nsys.path.insert(0, {str(project / 'src')!r})\n\n"
    (project / "tests/test_size.py").write_text(elsewhere + TESTS.format("size", "size", 2))
    code, _, error = tried(project, MUTANT, SIZE)
    assert code == 2 and error.count("\n") == 1 and "tests/test_size.py: passes with a package" in error

"""Cleaning up: what any reference, the working tree, a pin or a running process needs stays."""

import fcntl
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import stores
from standins import ROOT

from distillbench.commands import main
from distillbench.planning import plan_suite
from distillbench.store import Store

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
SUITE = stores.SUITE.replace("seeds: [0, 1]", "seeds: [0]")
ORPHANS = (
    SUITE.split("pairs")[0]
    + """\
pairs: [{teacher: wrn_16_2, student: resnet8}]
methods: {KD: {DISTILLER.TYPE: KD}}
"""
)
EXTRAS = {"digits/wrn_16_2-resnet8/kd", "digits/wrn_16_2/none"}  # what it names
PARAMS = Path("params/small.yaml")


def git(*arguments):
    return subprocess.run([*GIT, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory: a suite whose runs are finished, and two that it does not name."""
    monkeypatch.chdir(tmp_path)
    stores.new_project(tmp_path, SUITE)
    stores.finish_all(tmp_path)
    stores.new_project(tmp_path, ORPHANS)
    stores.finish_all(tmp_path)
    PARAMS.write_text(SUITE)
    return tmp_path


@pytest.fixture
def repository(folder):
    """The same in git, with the code."""
    shutil.copytree(ROOT / "src", "src", ignore=shutil.ignore_patterns("__pycache__"))
    Path(".gitignore").write_text("/results/*\n__pycache__/\n")
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "start")
    return folder


def methods(runs):
    return {run.rpartition("/")[0] for run in runs}


def listed(capsys, code=0, *options):
    """The runs that gc lists."""
    capsys.readouterr()
    assert main(["gc", *options]) == code
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[2] for line in lines if " MB  " in line}


def problem(capsys, *says):
    """gc lists, names the problem in a line and deletes nothing."""
    before = stores.files("results")
    assert main(["gc"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("problem: ") and all(text in lines[0] for text in says), lines
    assert main(["gc", "--delete", "--yes"]) == 2
    assert "nothing is deleted" in capsys.readouterr().err
    assert stores.files("results") == before


# What is kept


def test_runs_that_nothing_names_are_listed_with_their_sizes(repository, capsys):
    before = stores.files(".")
    assert methods(listed(capsys)) == EXTRAS
    assert main(["gc"]) == 0
    output = capsys.readouterr().out
    run = next(run for run in Store().ids() if "wrn_16_2-" in run)
    parts = [Store().planned(run), *(path for path in Store().run(run).rglob("*") if path.is_file())]
    megabytes = sum(path.stat().st_size for path in parts) / 1e6
    assert f"{megabytes:.1f} MB  {run}  (run, spec)" in output
    assert "2 runs, " in output and "of the working tree or of 2 git references" in output
    assert stores.files(".") == before


def test_a_suite_of_the_working_tree_keeps_its_runs(repository, capsys):
    Path("params/new.yaml").write_text(ORPHANS)
    assert listed(capsys) == set()


def branch():
    git("switch", "-q", "-c", "other")
    commit()
    git("switch", "-q", "main")


def commit():
    PARAMS.write_text(ORPHANS)
    git("commit", "-q", "-a", "-m", "other")


def tag():
    git("switch", "-q", "--detach")
    commit()
    git("tag", "-a", "-m", "a paper", "v1")
    git("switch", "-q", "main")


def remote_branch():
    branch()
    git("update-ref", "refs/remotes/origin/main", "other")
    git("branch", "-q", "-D", "other")


def detached_head():
    git("switch", "-q", "--detach")
    commit()
    PARAMS.write_text(SUITE)


def stash():
    PARAMS.write_text(ORPHANS)
    git("stash", "-q")


def older_stash():
    stash()
    PARAMS.write_text(SUITE + "# later\n")
    git("stash", "-q")


def untracked_file_in_a_stash():
    Path("params/new.yaml").write_text(ORPHANS)
    git("stash", "-q", "--include-untracked")


def suite_of_a_method_in_a_stash():
    """The suite is an edited file, its method an untracked one."""
    kd = Path("src/distillbench/methods/kd.py")
    kd.with_name("own.py").write_text(kd.read_text().replace('name = "KD"', 'name = "Own"'))
    PARAMS.write_text(f"{ORPHANS}  # with another row\n".replace("}}", "}, own: {DISTILLER.TYPE: Own}}"))
    git("stash", "-q", "--include-untracked")


def index_of_a_stash():
    PARAMS.write_text(ORPHANS)
    git("add", ".")
    PARAMS.write_text(SUITE + "# later\n")
    git("stash", "-q")


PLACES = [branch, tag, remote_branch, detached_head]
PLACES += [stash, older_stash, index_of_a_stash, untracked_file_in_a_stash, suite_of_a_method_in_a_stash]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_suite_of_any_reference_keeps_its_runs(repository, capsys, place):
    place()
    assert PARAMS.read_text() == SUITE and not Path("params/new.yaml").exists()
    assert listed(capsys, 0, "--delete", "--yes") == set()


def test_a_deleted_branch_keeps_nothing(repository, capsys):
    branch()
    git("branch", "-q", "-D", "other")
    assert methods(listed(capsys)) == EXTRAS


def test_the_suites_of_a_reference_are_expanded_by_its_own_code(repository, capsys):
    kd = Path("src/distillbench/methods/kd.py")
    code = kd.read_text()
    assert code.count("version = 1\n") == 1
    git("switch", "-q", "-c", "other")
    kd.write_text(code.replace("version = 1\n", "version = 2\n"))
    git("commit", "-q", "-a", "-m", "another KD")
    git("switch", "-q", "main")
    store, (run, specification) = Store(), next(e for e in plan_suite("small").runs.items() if "/kd/" in e[0])
    specification.data["method"]["version"] = 2
    other = type(specification)(specification.data)
    assert other.id != run
    shutil.copytree(store.run(run), store.run(other.id))
    kept = listed(capsys)
    assert methods(kept) == EXTRAS and other.id not in kept
    git("branch", "-q", "-D", "other")
    assert other.id in listed(capsys)


def own_method(text=""):
    """A branch with a method in a file of its own; returns the id of its run."""
    own = Path("my/own.py")
    own.parent.mkdir(exist_ok=True)
    code = Path("src/distillbench/methods/kd.py").read_text().replace('name = "KD"', 'name = "Own"')
    own.write_text(code + text)
    PARAMS.write_text(SUITE.replace("methods:", "method_files: [my/own.py]\nmethods:") + "  o: {DISTILLER.TYPE: Own}\n")
    git("add", ".")
    git("commit", "-q", "-m", "own method")
    run = next(run for run in plan_suite("small").runs if "/own/" in run)
    stores.finish(Store(), run)
    return run


def test_a_method_file_of_a_reference_counts(repository, capsys):
    git("switch", "-q", "-c", "first")
    runs = {own_method()}
    git("switch", "-q", "-c", "second")
    runs.add(own_method("EDITED = True\n"))
    git("switch", "-q", "main")
    assert len(runs) == 2 and not Path("my/own.py").exists()
    assert methods(listed(capsys)) == EXTRAS
    git("branch", "-q", "-D", "first")
    assert len(listed(capsys) & runs) == 1


def test_a_published_file_of_a_reference_counts(repository, capsys):
    git("switch", "-q", "-c", "first")
    Path("my").mkdir()
    Path("my/kd.yaml").write_text("DISTILLER: {TYPE: KD}\nKD: {TEMPERATURE: 3}\n")
    PARAMS.write_text(SUITE + "  o: {published: my/kd.yaml}\n")
    git("add", ".")
    git("commit", "-q", "-m", "published file")
    run = next(cell.specification.id for cell in plan_suite("small").cells if cell.row == "o")
    stores.finish(Store(), run)
    git("switch", "-q", "main")
    assert not Path("my/kd.yaml").exists() and run not in listed(capsys)
    git("branch", "-q", "-D", "first")
    assert run in listed(capsys)


def test_a_reference_without_params_is_no_problem(repository, capsys):
    git("switch", "-q", "--orphan", "pages")
    Path("index.html").write_text("text")
    git("add", "index.html")
    git("commit", "-q", "-m", "pages")
    git("switch", "-q", "main")
    assert methods(listed(capsys)) == EXTRAS
    assert main(["gc", "--delete", "--yes"]) == 0


def test_outside_git_the_working_tree_counts_alone_and_that_is_said(folder, capsys):
    assert main(["gc"]) == 0
    assert "outside git, so it alone counts" in capsys.readouterr().out
    assert methods(listed(capsys)) == EXTRAS


def test_a_folder_without_params_is_refused(folder, capsys):
    shutil.rmtree("params")
    assert main(["gc", "--delete", "--yes"]) == 2
    assert "run this in the project's directory" in capsys.readouterr().err
    assert len(Store().ids()) == 5


# Pins


@pytest.mark.parametrize("name", ["id", "path", "beginning", "hash"])
def test_a_pin_keeps_its_run_and_the_teacher(folder, capsys, name):
    run = next(run for run in Store().ids() if "wrn_16_2-" in run)
    text = {"id": run, "path": f"results/runs/{run}/", "beginning": "digits/wrn_16_2-", "hash": run[-12:-4]}[name]
    Path("params/pins.txt").write_text(f"# for the talk\n\n{text}  # a comment\n")
    assert listed(capsys) == set()
    assert main(["gc", "--delete", "--yes"]) == 0
    assert len(Store().ids()) == 5


def test_a_pinned_teacher_keeps_no_student(folder, capsys):
    Path("params/pins.txt").write_text("digits/wrn_16_2/none\n")
    assert methods(listed(capsys)) == {"digits/wrn_16_2-resnet8/kd"}


def test_a_pin_of_a_run_that_is_elsewhere_is_no_problem(folder, capsys):
    Path("params/pins.txt").write_text("digits/resnet8/none/s0-0123456789ab\n")
    assert main(["gc", "--delete", "--yes"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text, says", [("digits/wrn", "2 runs begin so"), ("digit/x", "no run here begins so")])
def test_an_unclear_pin_is_named_and_nothing_is_deleted(folder, capsys, text, says):
    Path("params/pins.txt").write_text(f"# pins\n{text}\n")
    problem(capsys, f"params/pins.txt, line 2: {text}: ", says)


def test_a_pin_of_another_branch_keeps_its_run(repository, capsys):
    git("switch", "-q", "-c", "other")
    Path("params/pins.txt").write_text("digits/wrn_16_2-\n")
    git("add", ".")
    git("commit", "-q", "-m", "pin")
    git("switch", "-q", "main")
    assert listed(capsys) == set()


# References that cannot be read


def test_a_reference_that_cannot_be_expanded_is_named_with_its_reason(repository, capsys):
    git("switch", "-q", "-c", "broken")
    PARAMS.write_text(SUITE + "  KD3: {DISTILLER.TYPE: KDD}\n")
    git("commit", "-q", "-a", "-m", "broken")
    git("switch", "-q", "main")
    problem(capsys, "refs/heads/broken: ", "params/small.yaml", "did you mean KD?")


def test_a_reference_without_code_is_named(repository, capsys):
    git("switch", "-q", "-c", "bare")
    git("rm", "-q", "-r", "src")
    git("commit", "-q", "-m", "bare")
    git("switch", "-q", "main")
    problem(capsys, "refs/heads/bare: ", "has no src/distillbench")


def test_a_broken_working_tree_is_named(folder, capsys):
    PARAMS.write_text(SUITE + "  KD3: {DISTILLER.TYPE: KDD}\n")
    problem(capsys, "the working tree: ", "did you mean KD?")


def test_a_suite_that_git_archive_would_leave_out_is_named(repository, capsys):
    Path(".gitattributes").write_text("params/small.yaml export-ignore\n")
    git("add", ".")
    git("commit", "-q", "-m", "attributes")
    problem(capsys, "leaves params/small.yaml out")


def test_a_repository_without_git_is_not_taken_for_a_folder_outside_git(repository, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(repository))
    assert main(["gc", "--delete", "--yes"]) == 2
    assert "git is not installed" in capsys.readouterr().err
    assert len(Store().ids()) == 5


# Deleting


def test_delete_removes_what_is_listed_and_nothing_else(folder, capsys):
    kept = {run for run in Store().ids() if "wrn" not in run}
    for run in Store().ids():
        Store().work(run).mkdir(parents=True)
        (Store().work(run) / "progress.json").write_text("{}")
    shutil.rmtree("results/runs/digits/wrn_16_2-resnet8")  # leaves work and specification
    Path("results/runs/notes.txt").write_text("mine")
    before = stores.files(".")
    assert main(["gc", "--delete", "--yes"]) == 0
    output = capsys.readouterr().out
    assert "(work, spec)" in output and "(run, work, spec)" in output and output.endswith("2 of 2 deleted\n")
    assert stores.files(".") == {path: content for path, content in before.items() if "wrn_16_2" not in path}
    assert set(Store().ids()) == kept
    assert not list(Path("results").rglob("*wrn*")), "no empty folder stays"
    assert listed(capsys) == set()


def test_without_a_terminal_and_yes_nothing_is_deleted(folder):
    done = subprocess.run(**command("gc", "--delete"), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--yes" in done.stderr
    assert len(Store().ids()) == 5


@pytest.mark.parametrize("answer, left", [("y", 3), ("n", 5), ("", 5)])
def test_on_a_terminal_it_asks_with_count_and_size(folder, answer, left):
    controller, terminal = pty.openpty()
    os.write(controller, f"{answer}\n".encode())
    done = subprocess.run(**command("gc", "--delete"), stdin=terminal, capture_output=True, text=True)
    os.close(controller)
    os.close(terminal)
    assert done.returncode == 0, done.stderr
    assert re.search(r"delete 2 runs, 0\.\d MB\? \[y/N\]", done.stdout)
    assert len(Store().ids()) == left


def command(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return {"args": [sys.executable, "-m", "distillbench", *arguments], "env": environment}


def test_a_run_that_is_being_trained_is_kept_with_its_teacher(folder, capsys):
    run = next(run for run in Store().ids() if "wrn_16_2-" in run)
    shutil.rmtree(Store().run(run))
    Store().work(run).mkdir(parents=True)
    with open(Store().work(run) / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert listed(capsys, 0, "--delete", "--yes") == set()
    assert Store().planned(run).exists() and len(Store().ids()) == 4
    assert methods(listed(capsys, 0, "--delete", "--yes")) == EXTRAS
    assert len(Store().ids()) == 3


def test_gc_imports_no_torch(folder):
    program = (
        "import sys; from distillbench.commands import main; code = main(['gc'])\n"
        "sys.exit(code or ', '.join({'torch', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(**command() | {"args": [sys.executable, "-c", program]}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_used_by_the_time_of_the_answer_is_kept(tmp_path, monkeypatch, capsys):
    stores.new_project(tmp_path)
    stores.finish_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    suite = tmp_path / "params/small.yaml"
    text = suite.read_text()
    suite.unlink()

    def answer(question):
        suite.write_text(text)
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    before = stores.files(tmp_path / "results/runs")
    assert main(["gc", "--delete"]) == 0
    assert "0 of 5 deleted" in capsys.readouterr().out
    assert stores.files(tmp_path / "results/runs") == before

"""A person's terminal, locale, user and disk: commands work in any, or say in one line what is wrong."""

import getpass
import os
import pwd
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import stores
from project import GIT, WITHOUT_POWER

from distillbench.commands import main
from distillbench.engine.record import git_state

SUITE = stores.SUITE.replace("  KD:", "  λ知:")
READING = ["plan small", "status small", "tables small", "explain small λ知", "ls", "show {run}", "diff {run} {other}"]
# Runs commands, separated by ;, in one process: the imports take longest.
MAIN = """\
import sys
from distillbench.commands import main
for command in " ".join(sys.argv[1:]).split(";"):
    print("code", main(command.split()), flush=True)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    stores.new_project(root, SUITE)
    stores.finish_all(root)
    for path in root.glob("results/runs/**/history.csv"):
        path.write_text("epoch,lr,test_top1,test_loss_ce\n1,0.1,50,0.5\n2,0.1,60,0.4\n")
    return root


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    root = Path(shutil.copytree(finished, tmp_path / "project"))
    monkeypatch.chdir(root)
    return root


def run_commands(root, commands, before=(), **variables):
    """What commands in a process of their own print; each ends with exit code 0."""
    done = subprocess.run(
        [*before, sys.executable, "-c", MAIN, *";".join(commands).split(" ")],
        cwd=root, env=os.environ | variables, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert done.stdout.count(b"code ") == done.stdout.count(b"code 0\n") == len(commands), done.stdout + done.stderr
    return done.stdout


def named(commands, root):
    run, other, *_ = sorted(stores.runs(root).values())
    return [command.format(run=run, other=other) for command in commands]


def test_output_replaces_what_the_terminal_cannot_show(project):
    shown = run_commands(project, named(READING, project), PYTHONIOENCODING="ascii:strict")
    assert b"??" in shown and shown.isascii()


def test_files_are_utf_8_whatever_the_locale(project):
    writing = ["tables small --partial --out t", "report small --partial", "export small --out e.tar"]
    commands = named([*READING, "plan small --only λ知", *writing], project)
    shown = run_commands(project, commands, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert b"??" in shown and shown.isascii()
    here = stores.files("t")
    assert "λ知" in here["partial-main.md"].decode() and "±" in here["partial-main.md"].decode()
    assert "λ知" in (project / "results/suites/small/index.csv").read_text(encoding="utf-8")
    assert main(["tables", "small", "--partial", "--out", "t"]) == 0
    assert stores.files("t") == here


def test_names_and_files_that_are_not_utf_8_stop_nothing(project):
    folder = Path("reports/small/tables")
    folder.mkdir(parents=True)
    for name in (b"partial-\xff.md", b"partial-\xff.tex"):
        (folder / os.fsdecode(name)).write_bytes(b"| a |\n| - |\n| \xff |\n")
    Path(os.fsdecode(b"params/\xff.yaml")).touch()
    Path("results/suites/small/index.csv").write_bytes(b"\xff")
    assert main(["report", "small", "--partial"]) == main(["plan", "small"]) == 0
    Path("reports/small/partial.html").read_text(encoding="utf-8")


def test_a_modified_file_that_is_not_utf_8_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("init -q", "config core.quotepath false", "commit -q --allow-empty -m -"):
        subprocess.run([*GIT, *command.split()], check=True)
    Path("src").mkdir()
    Path(os.fsdecode(b"src/\xff.py")).touch()
    commit, modified = git_state()
    assert len(commit) == 40 and len(modified) == 1


@pytest.fixture
def nobody(monkeypatch):
    """A user of whom the system knows nothing, as a container may have one."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "x")  # so that it is set to what it was afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_user_without_name_and_home_gets_both(project, nobody):
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    with pytest.raises(RuntimeError):
        Path.home()
    assert main(["plan", "small"]) == 0
    assert getpass.getuser() == str(os.getuid()) and Path.home().is_dir()


@pytest.mark.parametrize("value", ["", "yesterday", "-1"])
def test_a_source_date_that_is_none_is_not_handed_on(project, monkeypatch, value):
    """Libraries read it when they are imported, and fail."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    assert main(["plan", "small"]) == 0 and "SOURCE_DATE_EPOCH" not in os.environ
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert main(["plan", "small"]) == 0 and os.environ["SOURCE_DATE_EPOCH"] == "1700000000"


def test_a_user_with_name_and_home_keeps_them(project, monkeypatch):
    monkeypatch.setenv("USER", "someone")
    before = dict(os.environ)
    assert main(["plan", "small"]) == 0
    assert dict(os.environ) == before


def test_reading_commands_need_no_place_to_write(project):
    commands = named(READING, project)
    shutil.rmtree(project / "results/runs" / stores.runs(project)["NONE/s1"])
    for name in ("specs", "suites"):
        shutil.rmtree(project / "results" / name)
    before = stores.files(project)
    for path in (project, *project.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        attempt = [*WITHOUT_POWER, sys.executable, "-c", "open('results/x', 'w')"]
        assert subprocess.run(attempt, cwd=project, capture_output=True, check=False).returncode == 1
        shown = run_commands(project, commands, before=WITHOUT_POWER, PYTHONDONTWRITEBYTECODE="1")
    finally:
        for path in (project, *project.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
    assert "note: specifications are not written" in shown.decode()
    assert stores.files(project) == before


def test_status_and_tables_write_no_specification(project, capsys):
    shutil.rmtree(project / "results/runs" / stores.runs(project)["NONE/s1"])
    for name in ("specs", "suites"):
        shutil.rmtree(project / "results" / name)
    assert main(["status", "small"]) == main(["tables", "small"]) == 0
    assert "1 missing" in capsys.readouterr().out
    assert not (project / "results/specs").exists() and not (project / "results/suites").exists()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("tables small --partial --out t", "/partial-main.csv"),
        ("figures small --partial --out f", "/partial-accuracy.pdf"),
        ("export small --out e.tar", "e.tar"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_file(project, capsys, command, named):
    before = stores.files(project).keys()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        code = main(command.split())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and len(lines) == 1 and lines[0].startswith("distillbench: ") and named in lines[0], lines
    assert stores.files(project).keys() == before


def test_output_that_cannot_be_written_is_one_line(project):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "distillbench", "ls"]
        buffered = os.environ | {"PYTHONUNBUFFERED": ""}  # then nothing is written before the end
        done = subprocess.run(command, env=buffered, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr

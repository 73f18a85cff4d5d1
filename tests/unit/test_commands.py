"""The command line itself: what it refuses and how, exit codes, help, completion, and what these import."""

import builtins
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import stores
from click.shell_completion import BashComplete, ShellComplete
from project import parsed
from standins import ROOT

from distillbench import __version__, planning
from distillbench.commands import COMPLETE, main, program
from distillbench.errors import RunFailed, UserError

HEAVY = ("torch", "numpy", "pandas", "scipy", "matplotlib")
ROWS = ["Teacher", "NONE", "KD", "KD GKD", "007", "λ知"]
SUITE = stores.SUITE + '  KD GKD: {DISTILLER.TYPE: KD, GKD: {}, control: KD}\n  "007": {like: KD, KD.TEMPERATURE: 7}\n'
SUITE += "  λ知: {like: KD, KD.TEMPERATURE: 8}\nsweep: {SOLVER.LR: [0.1, 0.2]}\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    stores.new_project(root)
    stores.finish_all(root)
    (root / "params/swept.yaml").write_text(SUITE)
    (root / "params/007.yaml").write_text(stores.SUITE)
    return root


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    root = Path(shutil.copytree(finished, tmp_path / "project"))
    monkeypatch.chdir(root)
    return root


# What is refused


@pytest.mark.parametrize(
    "line, says",
    [
        ("", "missing command; see `distillbench --help`"),
        ("plna", "'plna'"),
        ("--frobnicate", "--frobnicate"),
        ("plan --onyl KD", "--onyl"),
        ("plan small KD", "unexpected extra argument"),
        ("show", "missing argument 'RUN'; see `distillbench show --help`"),
        ("explain small", "missing argument 'CELL...'"),
        ("train --spec s.json", "missing option '--out'"),
        ("train --spec", "'--spec' requires an argument; see `distillbench train --help`"),
        ("train --spec s.json --out o --save-seconds soon", "'soon' is not a valid float"),
        ("train --spec s.json --out o --log paper", "'paper' is not one of 'tensorboard', 'wandb'"),
        ("evaluate digits --stage all", "'all' is not one of 'predictions', 'metrics', 'both'"),
        ("tables small --partial=yes", "--partial"),
        ("data mnist", "unknown dataset 'mnist'; valid: cifar10, cifar100, digits, imagenet, tiny_imagenet"),
        ("data digit", "unknown dataset 'digit'; did you mean digits?"),
        ("data declare folder --name x", "missing option '--like'; see `distillbench data declare --help`"),
        ("data declare folder --name x --like cifar", "unknown dataset 'cifar'; did you mean cifar10?"),
        ("show nothing", "nothing: no such run in results/runs"),
        ("diff digits nothing", "nothing: no such run in results/runs"),
        ("status smal", "suite=smal: unknown suite 'smal'; did you mean small?"),
        ("check nothing.py", "nothing.py"),
    ],
)
def test_what_is_refused_is_one_line_and_exit_code_2(project, capsys, line, says):
    for run in list(stores.runs(project).values())[1:]:  # the one that is left is named by any beginning
        shutil.rmtree(project / "results/runs" / run)
    before = stores.files(project)
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert not out and line.startswith("distillbench: ") and says in line
    assert stores.files(project) == before


def test_a_line_break_in_an_argument_makes_no_second_line(project, capsys):
    for words in (["pl\nan"], ["plan", "--on\nly"], ["ls", "a\nb"], ["evaluate", "x", "--stage", "a\nb"]):
        assert main(words) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1, words


ENDS = {
    "bad input": (UserError("params: wrong"), 2, ["distillbench: params: wrong"]),
    "a failed run": (RunFailed("not finite"), 1, ["distillbench: not finite"]),
    "a path": (IsADirectoryError(21, "Is a directory", "x"), 2, ["distillbench: [Errno 21] Is a directory: 'x'"]),
    "a closed pipe": (BrokenPipeError(), 0, []),
    "Ctrl-C": (KeyboardInterrupt(), 130, []),
}


@pytest.mark.parametrize("error, code, lines", ENDS.values(), ids=ENDS)
def test_the_exit_code_says_how_it_ended(project, monkeypatch, capsys, error, code, lines):
    def ends(*_, **__):
        raise error

    monkeypatch.setattr(planning, "plan_suite", ends)
    monkeypatch.setattr(os, "dup2", lambda *_: None)  # pytest's own output
    assert main(["status", "small"]) == code
    assert capsys.readouterr().err.splitlines() == lines


def test_an_argument_that_begins_with_a_hyphen_stands_after_two(project):
    Path("params/-x.yaml").write_text(stores.SUITE.replace("  KD:", "  -k:"))
    assert main(["plan", "--only", "-k", "--", "-x"]) == main(["explain", "--", "-x", "-k"]) == 0
    assert parsed(["explain", "--", "-x", "-k/a-b/s0"]) == {"suite": "-x", "cell": ("-k/a-b/s0",)}


def test_a_number_stays_the_text_that_was_typed(project, capsys):
    assert main(["plan", "007", "--only", "KD"]) == main(["status", "007"]) == 0
    assert "suite 007: " in capsys.readouterr().out
    words = {"suite": "007", "only": "1e5,007", "table": None, "resolved": False}
    assert parsed(["plan", "007", "--only", "1e5,007"]) == words


def test_a_name_in_another_encoding_is_read_as_utf_8():
    typed = "λ".encode().decode("ascii", "surrogateescape")  # as Python has it in the locale C
    assert parsed(["plan", "--only", typed])["only"] == "λ" and parsed(["explain", "x", typed])["cell"] == ("λ",)


def test_a_run_is_logged_to_each_package_that_is_named():
    words = ["train", "--spec", "s", "--out", "o"]
    assert parsed(words)["log"] == ()
    assert parsed([*words, "--log", "tensorboard", "--log", "wandb"])["log"] == ("tensorboard", "wandb")


# Help


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command_and_every_command_its_arguments(capsys, option):
    assert main([option]) == 0
    listed = capsys.readouterr().out
    for name, command in program.commands.items():
        assert re.search(rf"^  {name} +[A-Z]", listed, re.MULTILINE)
        assert main([name, option]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert " ".join(command.help.split()) in shown
        for parameter in command.params:
            described = getattr(parameter, "help", None) or parameter.type.help
            assert described and described in shown, parameter.name


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"distillbench {__version__}\n"


def test_help_into_a_closed_pipe_or_a_full_disk_is_no_traceback():
    command = [sys.executable, "-m", "distillbench", "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(command, env=environment, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


# Completion


def completed(line):
    """What TAB offers at the end of a line; its last word is the one that is begun."""
    *words, begun = line.split(" ")
    return [item.value for item in ShellComplete(program, {}, "distillbench", COMPLETE).get_completions(words, begun)]


SUITES = ["007", "small", "swept"]


@pytest.mark.parametrize(
    "line, offered",
    [
        ("pl", ["plan"]),
        ("e", ["explain", "evaluate", "export"]),
        ("plan --o", ["--only"]),
        ("evaluate x --stage m", ["metrics"]),
        ("train --log ", ["tensorboard", "wandb"]),
        *((f"{name} ", SUITES) for name in ("plan", "status", "tables", "figures", "report", "export", "explain")),
        ("plan s", ["small", "swept"]),
        ("plan --only KD 0", ["007"]),
        ("plan x", []),
        ("explain swept ", ROWS),
        ("explain swept K", ["KD", "KD GKD"]),
        ("explain small K", ["KD"]),
        ("explain 007 -- ", ["Teacher", "NONE", "KD"]),
        ("plan swept --only ", ROWS),
        ("plan swept --only KD,N", ["KD,NONE"]),
        ("plan swept --only=K", ["KD", "KD GKD"]),
        ("export small --only T", ["Teacher"]),
        ("plan nothing --only ", []),
        ("train --device c", ["cpu", "cuda"]),
        ("evaluate x --device ", ["auto", "cpu", "cuda"]),
        ("data ", ["cifar10", "cifar100", "digits", "imagenet", "tiny_imagenet"]),
        ("data x", []),
        ("data declare folder --like c", ["cifar10", "cifar100"]),
        ("status small ", []),
    ],
)
def test_tab_offers_what_fits(project, line, offered):
    Path("params/no suite.yaml").touch()
    assert completed(line) == offered


@pytest.mark.parametrize("command", ["show ", "evaluate ", "diff ", "diff digits "])
def test_tab_offers_the_runs_that_are_here(project, command):
    ids = sorted(stores.runs(project).values())
    assert completed(command) == ids
    assert completed(f"{command}{ids[0][:-3]}") == [ids[0]]
    assert completed(f"{command}results/runs/d") == [f"results/runs/{run}" for run in ids]
    digest = ids[1].rpartition("-")[2]
    assert completed(f"{command}{digest[:8]}") == [digest]
    assert completed(f"{command}s0") == []


@pytest.mark.parametrize(
    "line, kind",
    [
        ("import a", "file"),
        ("check ", "file"),
        ("train --spec r", "file"),
        ("export small --out ", "file"),
        ("parity ", "dir"),
        ("tables small --out ", "dir"),
        ("train --work ", "dir"),
    ],
)
def test_the_shell_itself_completes_paths(line, kind):
    *words, begun = line.split(" ")
    (item,) = ShellComplete(program, {}, "distillbench", COMPLETE).get_completions(words, begun)
    assert (item.type, item.value) == (kind, begun)


def test_tab_on_runs_reads_no_file(project, monkeypatch):
    ids = sorted(stores.runs(project).values())

    def refuses(*_, **__):
        raise AssertionError("a file is read")

    completed("show ")  # imports what it needs
    monkeypatch.setattr(builtins, "open", refuses)
    monkeypatch.setattr(Path, "open", refuses)
    assert completed("show ") == ids


def damaged_specification(root):
    for path in root.glob("results/runs/**/spec.json"):
        path.write_text("{")


def not_a_folder(root):
    shutil.rmtree(root / "results/runs")
    (root / "results/runs").touch()


def without_anything(root):
    shutil.rmtree(root / "results")
    shutil.rmtree(root / "params")


def broken_params(root):
    for path in root.glob("params/*.yaml"):
        path.write_bytes(b"methods: [\xff")


def other_params(root):
    for path in root.glob("params/*.yaml"):
        path.write_text("methods: 3\n")


DAMAGES = [damaged_specification, not_a_folder, without_anything, broken_params, other_params]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_tab_never_fails_and_says_nothing_of_what_is_damaged(project, capsys, damage):
    damage(project)
    for line in ("plan ", "explain small ", "plan small --only ", "show ", "diff x ", "data ", "explain small KD "):
        assert isinstance(completed(line), list), line
    if damage in (not_a_folder, without_anything):
        assert completed("show ") == []
    if damage in (without_anything, broken_params):
        assert completed("plan small --only ") == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("instruction", ["bash_complete", "zsh_complete", "bash_nothing", "nothing"])
def test_the_answer_to_a_shell_that_asks_for_nothing_is_nothing(monkeypatch, capsys, instruction):
    monkeypatch.setenv(COMPLETE, instruction)
    monkeypatch.delenv("COMP_WORDS", raising=False)
    assert main([]) == 1
    assert capsys.readouterr() == ("", "")


def answered(project, line, **variables):
    """What a shell gets from a process of its own: (stdout, stderr)."""
    words = ["distillbench", *line.split(" ")]
    asked = {COMPLETE: "bash_complete", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | asked | variables
    command = [sys.executable, "-m", "distillbench"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_shell_is_answered_in_any_locale(project):
    for variables in (
        {},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ):
        out, err = answered(project, "explain swept ", **variables)
        assert err == b"" and out.decode().splitlines() == [f"plain,{row}" for row in ROWS]


def test_bash_completes_with_what_the_documentation_says(project, tmp_path):
    """The line for ~/.bashrc, then what bash calls when TAB is pressed."""
    (line,) = re.findall(r"^eval .*bash_source.*$", (ROOT / "docs/concepts.md").read_text(), re.MULTILINE)
    assert line.replace("bash", "zsh") in (ROOT / "docs/concepts.md").read_text()
    script = tmp_path / "bin/distillbench"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m distillbench "$@"\n')
    script.chmod(0o755)
    asks = f"{line}\nCOMP_WORDS=(distillbench explain small K) COMP_CWORD=3\n"
    asks += f'{BashComplete(program, {}, "distillbench", COMPLETE).func_name} distillbench; echo "${{COMPREPLY[@]}}"'
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PATH": f"{script.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", asks], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("KD\n", "")


# What is imported

ASKS = """\
import sys
from click.shell_completion import ShellComplete
from distillbench.commands import COMPLETE, main, program
from contextlib import redirect_stdout
import io
with redirect_stdout(io.StringIO()):
    for words in (["--help"], *([name, "--help"] for name in program.commands)):
        assert main(words) == 0
ask = ShellComplete(program, {}, "distillbench", COMPLETE).get_completions
for words in ([], ["plan"], ["show"], ["diff", "x"], ["train", "--device"], ["train", "--spec"], ["data"]):
    assert ask(words, ""), words
assert ask(["export", "small", "--predictions", "--out"], "") and ask(["plan"], "--")
light = sorted({*HEAVY, "yaml"} & sys.modules.keys())
assert ask(["explain", "small"], "")
print(light, sorted({*HEAVY, "yacs"} & sys.modules.keys()))
"""


def test_help_and_completion_import_nothing_heavy(project):
    """Not even YAML, but for rows, which stand in a file of it."""
    command = [sys.executable, "-c", f"HEAVY = {HEAVY}\n{ASKS}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] []\n", "")

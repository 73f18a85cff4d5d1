"""`explain`: from a cell to its runs, complete or not, and its numbers are those of the table."""

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import stores
from standins import ROOT

from distillbench.commands import main
from distillbench.config.suite import load_suite
from distillbench.files import read_json
from distillbench.reporting.render import markdown
from distillbench.reporting.results import read_results
from distillbench.store import Store
from distillbench.store.layout import CHECKPOINTS

TWO_PAIRS = """\
dataset: digits
seeds: [0, 1]
pairs: [{teacher: resnet20, student: resnet8}, {teacher: wrn_16_2, student: resnet8}]
methods:
  NONE: {DISTILLER.TYPE: NONE}
  KD: {DISTILLER.TYPE: KD, control: NONE}
  hot: {like: KD, control: KD}
  GKD: {like: KD, GKD: {}, control: KD}
sweep: {KD.WARMUP: [0, 3], SOLVER.LR_DECAY_STAGES: [[1, 2], [3]]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory: a suite of which everything is finished, with another accuracy for each run."""
    monkeypatch.chdir(tmp_path)
    store = stores.new_project(tmp_path, stores.SUITE.replace("[0, 1]", "[0, 1, 2]"))
    for i, run in enumerate(stores.runs(tmp_path).values()):
        stores.finish(store, run, correct=50 + 3 * i**2 % 37)
    return tmp_path


def explained(capsys, *arguments):
    capsys.readouterr()
    assert main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def values(text, name):
    """What stands behind a name, in every line that begins with it."""
    return [line.split(None, 1)[1] for line in text.splitlines() if line.startswith(f"  {name} ")]


def test_the_cell_is_the_one_in_the_table(folder, capsys):
    assert main(["tables", "small", "--partial", "--out", "tables"]) == 0
    text = Path("tables/partial-main.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| KD "))
    accuracy, best, difference = [cell.strip() for cell in row.strip("| ").split("|")][1:4]
    text = explained(capsys, "small", "KD/resnet20-resnet8")
    assert text.splitlines()[0] == f"KD, resnet20-resnet8, suite small: {accuracy}, best {best}, {difference}"
    mean = re.fullmatch(r"([+-][\d.]+ \[.*\]) vs NONE", difference)[1]
    assert f"    mean  {mean}, 95 % t-interval of 3 paired seeds, 1 teacher" in text


def test_the_terminal_shows_the_summary(folder, capsys):
    assert main(["tables", "small"]) == 0
    assert capsys.readouterr().out.startswith(markdown.render(read_results("small", partial=True).summary))


def test_matched_teachers_are_named_and_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stores.new_project(tmp_path, f"{stores.SUITE}teacher_seed: matched\n")
    stores.finish_all(tmp_path)
    known = stores.runs(tmp_path)
    text = explained(capsys, "small", "KD/resnet20-resnet8")
    assert values(text, "teacher") == [f"{known[f'Teacher/s{1000 + seed}']} (last)" for seed in (0, 1)]
    assert "t-interval of 2 paired seeds, 2 teachers" in text
    text = explained(capsys, "small", "Teacher/resnet20-resnet8/s1001")
    assert f"s1001  done  {known['Teacher/s1001']}" in text and "only=Teacher/resnet20-resnet8/s1001" in text
    assert main(["explain", "small", "Teacher/resnet20-resnet8/s1"]) == 2
    assert "s1001" in capsys.readouterr().err


def test_every_run_is_shown_with_state_values_teacher_and_files(folder, capsys):
    text, known = explained(capsys, "small", "KD/resnet20-resnet8"), stores.runs(folder)
    for seed in range(3):
        run = known[f"KD/s{seed}"]
        metrics = [next(e["value"] for e in Store().metrics(run, c) if e["metric"] == "top1") for c in CHECKPOINTS]
        assert f"s{seed}  done  {run}  last {metrics[0]:.2f}  best {metrics[1]:.2f}" in text
        assert f"results/runs/{run}" in values(text, "run")
        assert f"results/specs/{run}.json" in values(text, "spec")
        assert f"results/logs/run/{run}.log  (not here)" in values(text, "log")
        for checkpoint in CHECKPOINTS:
            path = Store().evaluation(run, checkpoint) / "predictions.npz"
            assert str(path) in values(text, "predictions")
    assert values(text, "teacher") == [f"{known['Teacher/s0']} (last)"] * 3
    assert values(text, "source") == ["params/small.yaml, row KD"]
    assert values(text, "processor") == ["unknown"] * 3, "of records that name none"


def test_provenance_is_that_of_the_record(folder, capsys):
    record = read_json(Store().run(stores.runs(folder)["KD/s1"]) / "record.json")
    text = explained(capsys, "small", "KD/resnet20-resnet8/s1")
    assert values(text, "made") == [f"{record['finished']} on {record['device']}"]
    assert values(text, "commit") == [f"{record['commit']}, modified: src/distillbench/store.py"]
    assert values(text, "versions") == ["torch 2.0"]
    assert values(text, "origin") == ["params/small.yaml, row a row"]


def test_the_command_trains_this_run(folder, capsys):
    run = stores.runs(folder)["KD/s1"]
    text = explained(capsys, "small", "KD/resnet20-resnet8/s1")
    (line,) = values(text, "train")
    words = shlex.split(line)
    assert words[:2] == ["distillbench", "train"]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options == {
        "--spec": str(Store().planned(run)),
        "--out": str(Store().run(run)),
        "--work": str(Store().work(run)),
        "--device": "cuda",  # as the record says: "a device"
    }
    rule = (ROOT / "workflow/rules/run.smk").read_text()
    assert all(f"{option} {{params." in rule for option in options)
    assert Path(options["--spec"]).exists()


def test_the_difference_is_paired_by_seed_and_its_keys_are_those_that_matter(folder, capsys):
    text, known = explained(capsys, "small", "KD/resnet20-resnet8"), stores.runs(folder)
    behind = text.partition("\ncontrol NONE\n")[2]
    top1 = {name: Store().metrics(run, "last")[0]["value"] for name, run in known.items()}
    for seed in range(3):
        treated, control = top1[f"KD/s{seed}"], top1[f"NONE/s{seed}"]
        line = f"    s{seed}    {treated - control:+.2f} = {treated:.2f} - {control:.2f}  ({known[f'NONE/s{seed}']})"
        assert line in behind.splitlines()
    keys = re.findall(r"^    (\S+) +(\S+ -> .*)$", behind, re.MULTILINE)
    assert "specification, s0, s1, s2:" in behind
    assert dict(keys) == {
        "method.name": "NONE -> KD",
        "method.parameters.LOSS.CE_WEIGHT": "(absent) -> 0.1",
        "method.parameters.LOSS.KD_WEIGHT": "(absent) -> 0.9",
        "method.parameters.TEMPERATURE": "(absent) -> 4.0",
        "method.parameters.WARMUP": "(absent) -> 0",
        "teacher.checkpoint": "(absent) -> last",
        "teacher.id": f"(absent) -> {known['Teacher/s0']}",
    }


def test_a_cell_may_be_a_seed_or_a_row_alone_and_a_teacher(folder, capsys):
    one = explained(capsys, "small", "KD/resnet20-resnet8/s1")
    assert re.findall(r"^(s\d)  done", one, re.MULTILINE) == ["s1"]
    assert "of 3 paired seeds" in one, "the cell's numbers do not depend on the seed that is looked at"
    assert explained(capsys, "small", "KD") == explained(capsys, "small", "KD/resnet20-resnet8")
    assert explained(capsys, "small", "Teacher").endswith("\nno control\n")


def test_a_suite_without_a_run_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stores.new_project(tmp_path)
    shutil.rmtree("results")
    text = explained(capsys, "small", "KD")
    assert text.startswith("KD, resnet20-resnet8, suite small: -, best -\n")
    assert re.findall(r"^(s\d)  missing", text, re.MULTILINE) == ["s0", "s1"]
    assert text.count("no value of KD and NONE") == 2 and "mean" not in text
    assert all(path.endswith("(not here)") for path in values(text, "run"))
    assert not values(text, "made")


def test_a_control_without_a_value_is_said_for_its_seed(folder, capsys):
    shutil.rmtree(Store().run(stores.runs(folder)["NONE/s1"]))
    text = explained(capsys, "small", "KD")
    assert re.search(r"^    s1    no value of NONE  \(", text, re.MULTILINE)
    assert "of 2 paired seeds" in text and text.count(" = ") == 2


def test_another_realisation_of_the_teacher_is_said(folder, capsys):
    stores.finish(Store(), stores.runs(folder)["Teacher/s0"], weight=2.0)
    assert len(values(explained(capsys, "small", "KD"), "warning")) == 3


@pytest.mark.parametrize(
    "cell, says",
    [
        ("KDD", "unknown row 'KDD'; did you mean KD?"),
        ("KD/resnet20-resnet", "unknown pair 'resnet20-resnet'; did you mean resnet20-resnet8?"),
        ("KD/resnet20-resnet8/s9", "unknown seed 's9'; "),
        ("KD/resnet20-resnet8/s0/x", "a cell is ROW/PAIR or ROW/PAIR/sSEED"),
        ("K*", "unknown row 'K*'"),
    ],
)
def test_an_unknown_cell_is_one_line_with_the_nearest_name(folder, capsys, cell, says):
    assert main(["explain", "small", cell]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_rows_of_a_sweep_are_named_without_quotes_and_the_workflow_matches_exactly_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stores.new_project(tmp_path, TWO_PAIRS)
    suite = load_suite("small")
    row = next(cell.row for cell in suite.cells if cell.row.startswith("hot") and "[1;2]" in cell.row)
    assert " " in row
    text = explained(capsys, "small", *f"{row}/wrn_16_2-resnet8".split(" "))
    (line,) = values(text, "workflow")
    (only,) = (word.removeprefix("only=") for word in shlex.split(line) if word.startswith("only="))
    part = [cell for cell in suite.only(only).cells if cell.role != "teacher"]
    assert {(cell.row, cell.pair) for cell in part} == {(row, "wrn_16_2-resnet8")}
    assert "suite=small" in shlex.split(line)
    assert main(["explain", "small", row]) == 2
    assert f"is in 2 pairs; write one of {row}/resnet20-resnet8, {row}/wrn" in capsys.readouterr().err
    assert fnmatch.fnmatchcase(row, only.split("/")[0])


def test_only_what_is_written_differs_between_two_rows_of_one_method(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stores.new_project(tmp_path, TWO_PAIRS.partition("sweep")[0])
    text = explained(capsys, "small", "GKD/wrn_16_2-resnet8")
    keys = re.findall(r"^    (\S+) +\S+ -> ", text, re.MULTILINE)
    assert keys and all(key.startswith("gradient_scaling.parameters.") for key in keys), keys


def test_explain_imports_no_torch(folder):
    program = (
        "import sys; from distillbench.commands import main; code = main(['explain', 'small', 'KD'])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

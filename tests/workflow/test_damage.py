"""Damaged files of a store: one line that names the file, exit code 2, nothing overwritten."""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import WITHOUT_POWER
from stores import SUITE, files, finish_all, new_project, runs

from distillbench import data
from distillbench.commands import main
from distillbench.config import components
from distillbench.config.implemented import require_trainable
from distillbench.errors import UserError
from distillbench.files import read_json, to_json
from distillbench.store import Store

COMMANDS = {
    "record.json": [["status", "small"], ["tables", "small"], ["explain", "small", "KD/resnet20-resnet8"]],
    "metrics.json": [["tables", "small"], ["explain", "small", "KD/resnet20-resnet8"], ["ls"]],
    "history.csv": [["figures", "small", "--partial"]],
    "spec.json": [["status", "small"]],
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    new_project(tmp_path)
    finish_all(tmp_path)
    for path in tmp_path.glob("results/runs/**/history.csv"):
        path.write_text("epoch,lr,test_top1,test_loss_ce\n1,0.1,50,0.5\n2,0.1,60,0.4\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


UNREADABLE = {"record.json": ["status", "small"], "predictions.npz": ["plan", "small"], "spec.json": ["ls"]}
UNREADABLE |= {"metrics.json": ["tables", "small"], "folder": ["status", "small"], "its folder": ["ls"]}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_may_not_be_read_stops_no_other_and_is_not_called_damaged(project, name):
    run = runs(project)["NONE/s1"]
    path = next(p for p in Store().run(run).rglob(name if "." in name else "spec.json") if "best" not in str(p))
    path = path if "." in name else path.parents[1]
    path.chmod(0)
    command = (sys.executable, "-m", "distillbench", *UNREADABLE[name])
    result = subprocess.run([*WITHOUT_POWER, *command], capture_output=True, text=True)
    path.chmod(0o700)
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert "ermission denied" in result.stderr and "remove" not in result.stderr, result.stderr
    assert all(line.startswith("distillbench: ") for line in result.stderr.splitlines())
    assert any(others in result.stdout for others in ("4 done", "3 done", "4 of 5 runs", "kd/s1")), result.stdout


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "1" * 5_000, '{"run": ' + "9" * 5_000 + "}"], ids=["deep", "long", "in"]
)
@pytest.mark.parametrize("name", ["record.json", "metrics.json", "spec.json"])
def test_json_that_python_cannot_hold_is_a_damaged_file_like_others(project, capsys, name, content):
    path = next(p for p in Store().run(runs(project)["NONE/s1"]).rglob(name))
    path.write_text(content)
    capsys.readouterr()
    for command in (["ls"], ["status", "small"], ["tables", "small"]):
        assert main(command) == 2
        assert str(path) in capsys.readouterr().err


def one_line(capsys, *parts):
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("distillbench: "), lines
    assert all(part in lines[0] for part in parts), lines[0]


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "other,columns\n1,2\n"], ids=["empty", "object", "list", "foreign"]
)
@pytest.mark.parametrize("name, command", [(name, c) for name in COMMANDS for c in COMMANDS[name]], ids=str)
def test_a_damaged_file_of_a_run_is_named_in_one_line(project, capsys, name, command, content):
    assert main(command) == 0
    run = Store().run(runs(project)["KD/s1"])
    path = next(path for path in run.rglob(name) if "best" not in str(path))
    path.write_text(content)
    before = files(project / "results/runs")
    capsys.readouterr()
    assert main(command) == 2
    one_line(capsys, str(path))
    assert files(project / "results/runs") == before


@pytest.mark.parametrize("name", ["metrics.csv", "costs.csv", "index.csv"])
@pytest.mark.parametrize("content", ["", "other,columns\n1,2\n"], ids=["empty", "foreign"])
def test_a_damaged_file_of_a_suite_is_named_in_one_line(project, capsys, name, content):
    assert main(["collect", "small", "--out", "results/suites/small"]) == 0
    assert main(["tables", "small", "--out", "tables"]) == 0
    (project / "results/suites/small" / name).write_text(content)
    capsys.readouterr()
    assert main(["tables", "small", "--out", "tables"]) == 2
    one_line(capsys, f"results/suites/small/{name}")


@pytest.mark.parametrize(
    "command",
    [["export", "small", "--out", "taken.tar"], ["tables", "small", "--partial", "--out", "params/small.yaml"]],
    ids=["a directory", "below a file"],
)
def test_an_output_that_cannot_be_written_is_one_line(project, capsys, command):
    (project / "taken.tar").mkdir()
    assert main(command) == 2
    one_line(capsys)


def test_a_details_count_is_that_of_evaluated_runs(project):
    for path in Store().run(runs(project)["KD/s1"]).rglob("metrics.json"):
        path.unlink()
    assert main(["tables", "small", "--partial", "--out", "tables"]) == 0
    line = next(
        row for row in (project / "tables/partial-details.csv").read_text().splitlines() if row.startswith("KD,")
    )
    assert line.split(",")[2] == "1"


@pytest.mark.parametrize("rate", [None, 0.0])
def test_a_run_without_a_rate_has_none_and_lowers_no_mean(project, rate):
    """0.0 is what a run got whose last attempt had nothing left to train."""
    path = Store().run(runs(project)["KD/s1"]) / "record.json"
    path.write_text(to_json(read_json(path) | {"images_per_second": rate}))
    assert main(["report", "small", "--partial"]) == 0
    with open("reports/small/tables/partial-details.csv", newline="") as file:
        line = next(row for row in csv.DictReader(file) if row["row"] == "KD")
    assert float(line["images_per_second"]) == 50 and not line["images_per_second_sd"]
    assert main(["collect", "small", "--out", "costs"]) == 0
    with open("costs/costs.csv", newline="") as file:
        assert sorted(row["images_per_second"] for row in csv.DictReader(file)) == ["", "50.0", "50.0", "50.0", "50.0"]


# Runs that are here in part, or damaged, among others that are whole

PARTS = {  # what is left of a run, and what its line in `ls` says
    "no specification": (["history.csv", "eval/"], "in part"),
    "evaluations only": (["eval/"], "in part"),
    "one metrics.json": (["eval/test-last-"], "in part"),
    "weights only": (["model.last.pt"], "in part"),
    "record only": (["record.json"], "in part"),
    "predictions only": (["predictions.npz"], "in part"),
    "specification only": (["spec.json"], "missing"),
    "no weights": (["spec.json", "record.json", "history.csv", "eval/"], "50.00"),
}
LISTINGS = (["ls"], ["plan", "small"], ["status", "small"], ["tables", "small"], ["explain", "small", "KD"])


@pytest.mark.parametrize("planned", [True, False], ids=["of a suite", "of none"])
@pytest.mark.parametrize("part", PARTS)
def test_a_run_that_is_here_in_part_stops_no_list_of_the_others(project, capsys, part, planned):
    kept, says = PARTS[part]
    run, others = runs(project)["KD/s1"], [r for name, r in runs(project).items() if name != "KD/s1"]
    if not planned:
        (project / "params/small.yaml").write_text(SUITE.replace("[0, 1]", "[0]"))
        Store().planned(run).unlink()
    for path in [path for path in Store().run(run).rglob("*") if path.is_file()]:
        if not any(name in path.relative_to(Store().run(run)).as_posix() for name in kept):
            path.unlink()
    before = files(project / "results/runs")
    for command in (*LISTINGS, ["show", run], ["gc"], ["export", "small", "--out", "small.tar"]):
        assert main(command) == 0, command
        out, err = capsys.readouterr()
        assert err == "" and "Traceback" not in out
        if command == ["ls"]:
            lines = {line.split()[0]: line for line in out.splitlines()}
            assert lines.keys() == {run, *others} and all("50.00" in lines[other] for other in others)
            assert planned or says in lines[run]
        if command[0] == "tables":
            assert re.search(r"^\| NONE +\| 50.00", out, re.MULTILINE)
    assert files(project / "results/runs") == before


@pytest.mark.parametrize("content", ["", "[]", "{}", "\x00"], ids=repr)
@pytest.mark.parametrize("name", ["record.json", "metrics.json", "predictions.npz", "spec.json"])
def test_a_damaged_run_stops_no_list_of_the_others_and_is_named_once(project, capsys, name, content):
    run, other = runs(project)["KD/s1"], runs(project)["NONE/s1"]
    path = next(path for path in Store().run(run).rglob(name) if "best" not in str(path))
    path.write_text(content)
    before = files(project / "results/runs")
    for command in (*LISTINGS, ["show", run]):
        assert main(command) == 2, command
        out, err = capsys.readouterr()
        (line,) = err.splitlines()
        assert line.startswith(f"distillbench: {path}: ") and "Traceback" not in out
        if command[0] in ("ls", "plan", "status"):
            (mine,) = (text for text in out.splitlines() if run in text)
            assert "damaged" in mine and str(path) in mine
        if command == ["ls"]:
            assert f"{other}  50.00" in out.splitlines()
        if command[0] == "tables":
            assert re.search(r"^\| NONE +\| 50.00 ± 0.00 \(2/2\)", out, re.MULTILINE)
    assert main(["export", "small", "--out", "small.tar"]) == 0
    out = capsys.readouterr().out
    assert f"note: {run}: left out, {path}: " in out and "4 of 5 runs" in out
    assert files(project / "results/runs") == before


def test_two_damaged_runs_are_two_lines(project, capsys):
    for name in ("KD/s0", "NONE/s1"):
        (Store().run(runs(project)[name]) / "record.json").write_text("{}")
    for command in (["ls"], ["status", "small"], ["tables", "small"]):
        assert main(command) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2 and all("not a run's record" in line for line in lines)


@pytest.mark.parametrize("name", ["history.csv", "record.json", "metrics.json", "spec.json"])
def test_a_damaged_file_leaves_the_partial_report_complete_but_for_it(project, capsys, name):
    path = next(p for p in Store().run(runs(project)["KD/s1"]).rglob(name) if "best" not in str(p))
    path.write_text("{}")
    assert main(["report", "small", "--partial"]) == 2
    one_line(capsys, str(path))
    page = (project / "reports/small/partial.html").read_text()
    assert name == "history.csv" or f"damaged: {path}" in page
    assert (project / "reports/small/partial.html").exists() and (project / "reports/small/partial-paper").is_dir()


def test_a_run_beside_a_damaged_one_is_not_called_damaged(project, capsys):
    """A missing run is compared with those that differ in their code only."""
    damaged, missing = (Store().run(runs(project)[name]) for name in ("KD/s1", "KD/s0"))
    damaged = damaged.rename(damaged.with_name("s0-0123456789ab"))
    (damaged / "spec.json").write_text("{}")
    shutil.rmtree(missing)
    assert main(["status", "small"]) == 0
    assert "damaged" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"last": "0" * 64}},
        {"weights": {"last": 1, "best": 2}},
        {"teacher_weights": 3},
        {"seconds": "10"},
        {"images_per_second": "fast"},
        {"versions": []},
        {"modified": 3},
        {"finished": None},
    ],
    ids=str,
)
def test_a_record_of_another_form_is_damaged(project, capsys, change):
    path = Store().run(runs(project)["KD/s1"]) / "record.json"
    path.write_text(to_json(read_json(path) | change))
    for command in (["ls"], ["status", "small"], ["explain", "small", "KD"]):
        assert main(command) == 2
        one_line(capsys, "record.json: not a run's record")


def test_a_damaged_specification_of_a_pinned_run_is_a_problem_and_nothing_is_deleted(project, capsys):
    run = runs(project)["KD/s1"]
    (Store().run(run) / "spec.json").write_text("{}")
    (project / "params/small.yaml").unlink()
    (project / "params/pins.txt").write_text(f"{run}\n")
    before = files(project)
    assert main(["gc", "--delete", "--yes"]) == 2
    out, err = capsys.readouterr()
    assert runs_listed(out) >= 4 and f"problem: {run}" in err and "nothing is deleted" in err
    assert files(project) == before


def runs_listed(text):
    return sum(" MB  digits/" in line for line in text.splitlines())


def test_a_damaged_plan_of_a_run_is_written_again(project):
    """It is derived from params/; the specification of a finished run is in its own directory."""
    for content in ("", "[]", "{}", "{"):
        path = Store().planned(runs(project)["KD/s1"])
        whole = path.read_bytes()
        path.write_text(content)
        assert main(["plan", "small"]) == 0
        assert path.read_bytes() == whole


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_a_suite_on_images_that_are_not_here_is_planned_and_says_where_to_get_them(
    tmp_path, monkeypatch, capsys, dataset
):
    new_project(tmp_path, SUITE.replace("digits", dataset))
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "small"]) == 0 and "5 to train" in capsys.readouterr().out
    run = runs(tmp_path)["NONE/s0"]
    specification = Store().specification(run)
    require_trainable(specification)
    assert specification["dataset"].keys() == {"name", "version", "md5", "protocol"}
    assert specification["views"]["augmentation"] == {"kind": "crop_flip", "crop_padding": 4, "flip": True}
    assert main(["train", "--spec", f"results/specs/{run}.json", "--out", f"results/runs/{run}"]) == 2
    one_line(capsys, f"results/data/{dataset}.npz: no such file; make it with `distillbench data {dataset}`")
    assert not Path(f"results/runs/{run}").exists()


def test_a_suite_on_images_in_files_that_are_not_here_is_planned_and_not_trained(tmp_path, monkeypatch, capsys):
    pair = "{teacher: ResNet34, student: ResNet18}"
    new_project(tmp_path, SUITE.replace("digits", "imagenet").replace("{teacher: resnet20, student: resnet8}", pair))
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "small"]) == 0 and "5 to train" in capsys.readouterr().out
    run = runs(tmp_path)["NONE/s0"]
    require_trainable(Store().specification(run))
    assert main(["data", "imagenet"]) == 2
    one_line(capsys, "imagenet: is not here; put it into a folder imagenet in one that DISTILLBENCH_DATA names")
    assert main(["train", "--spec", f"results/specs/{run}.json", "--out", f"results/runs/{run}"]) == 2
    one_line(capsys, "results/data/imagenet.npz: no such file; make it with `distillbench data imagenet`")
    assert not Path(f"results/runs/{run}").exists() and not data.data_path("imagenet").exists()


def test_images_that_are_not_those_declared_are_neither_made_nor_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "digits"]) == 0
    path = data.data_path("digits")
    declared = components.datasets()["digits"]
    assert data.load("digits", path).digest == declared["sha256"]
    monkeypatch.setitem(components.datasets(), "digits", {**declared, "sha256": "0" * 64})
    with pytest.raises(UserError, match="other images than digits declares"):
        data.load("digits", path)
    path.unlink()
    capsys.readouterr()
    assert main(["data", "digits"]) == 2
    one_line(capsys, "digits", "declared is 000000000000")
    assert not path.exists()

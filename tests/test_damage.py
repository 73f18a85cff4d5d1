"""Damaged files of a store: one line that names the file, exit code 2, nothing overwritten."""

import csv

import pytest
from stores import files, finish_all, new_project, runs

from distillbench.cli import main
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

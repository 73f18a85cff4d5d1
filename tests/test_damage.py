"""Damaged files of a store: one line that names the file, exit code 2, nothing overwritten."""

import pytest
from stores import files, finish_all, new_project, runs

from distillbench import data
from distillbench.cli import main
from distillbench.config import components
from distillbench.errors import UserError
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

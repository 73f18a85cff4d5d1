"""The rule that prepares data."""

from project import SMALL, new_project, succeeded
from published import write_cifar

from distillbench.data import copies

SUITE = SMALL.replace("dataset: digits", "dataset: mine")
FILE = "results/data/mine.npz"


def test_a_dataset_of_ones_own_is_prepared_by_the_workflow(tmp_path, monkeypatch):
    write_cifar(tmp_path / "sets/mine")
    project = new_project(tmp_path / "project", SUITE)
    declare = ("python", "-m", "distillbench", "data", "declare", str(tmp_path / "sets/mine"), "--name", "mine")
    succeeded(project.call(*declare, "--like", "cifar100"))
    monkeypatch.setenv(copies.VARIABLE, str(tmp_path / "sets"))
    succeeded(project.snakemake(FILE, "--config", "suite=small"))
    (line,) = (project.path / "results/logs/data/mine.log").read_text().splitlines()
    assert (project.path / FILE).exists() and line == f"mine: {tmp_path}/sets/mine, verified: every file"
    assert project.git_status().split() == ["??", "params/datasets/"]

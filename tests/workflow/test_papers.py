"""A reduced copy of a paper's suite: what it includes, through the workflow to its table."""

import pytest
from project import jobs, project_with_own_images, succeeded

REDUCED = """\
include: cifar100_same.yaml
dataset: mine
seeds: [0]
base: {SOLVER: {EPOCHS: 1, BATCH_SIZE: 4, LR_DECAY_STAGES: [1]}}
pairs: [{teacher: resnet14, student: resnet8, DKD.BETA: 2}]
methods: {CRD: {CRD.NCE.K: 8}}
"""
SHARED = "params/common/rows.yaml"


@pytest.fixture
def project(tmp_path, monkeypatch):
    return project_with_own_images(tmp_path, monkeypatch, REDUCED)


def test_a_reduced_copy_of_a_papers_suite_runs_to_its_table(project):
    done = project.build()
    assert len(done["run"]) == 26 + 1 == len(project.trained())
    rows = project.rows("reports/small/tables/main.csv")
    assert {row["n"] for row in rows} == {"1"} and len({row["row"] for row in rows}) == 27
    page = (project.path / "reports/small/index.html").read_text()
    assert "KD-warm weighted" in page and f"<h3>{SHARED}</h3>" in page
    assert "Nothing to be done" in succeeded(project.snakemake("-n", "--config", "suite=small"))


@pytest.mark.parametrize(
    ("suite", "runs"), {"cifar100_same": 805, "cifar100_different": 790, "tiny_imagenet": 265, "imagenet": 54}.items()
)
def test_a_dry_run_of_a_papers_suite_needs_no_data_and_has_a_job_for_each_run(project, suite, runs):
    """Numbers as in the arithmetic of test_suites.py; besides, data once and the reports."""
    planned = jobs(succeeded(project.snakemake("-n", "--config", f"suite={suite}", "table=never")))
    assert len(planned["run"]) == runs and planned.keys() == {
        "data",
        "run",
        "collect",
        "tables",
        "figures",
        "report",
        "all",
    }
    assert {len(found) for rule, found in planned.items() if rule != "run"} == {1}

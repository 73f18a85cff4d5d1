"""The rule that prepares data."""

import json
import shutil

from project import SMALL, new_project, project_with_own_images, succeeded
from published import write_imagenet

from distillbench.data import copies

SUITE = SMALL.replace("dataset: digits", "dataset: mine")
FILE = "results/data/mine.npz"


def test_a_dataset_of_ones_own_is_prepared_by_the_workflow(tmp_path, monkeypatch):
    project = project_with_own_images(tmp_path, monkeypatch, SUITE)
    succeeded(project.snakemake(FILE, "--config", "suite=small"))
    (line,) = (project.path / "results/logs/data/mine.log").read_text().splitlines()
    assert (project.path / FILE).exists() and line == f"mine: {tmp_path}/sets/mine, verified: every file"
    assert project.git_status().split() == ["??", "params/datasets/"]


STREAMED = SMALL.replace("dataset: digits", "dataset: mine").replace("resnet8", "MobileNetV1").replace("[0, 1]", "[0]")
STREAMED = STREAMED.replace("  NONE: {DISTILLER.TYPE: NONE}\n", "").replace(", control: NONE", "")
STREAMED = STREAMED.replace("BATCH_SIZE: 100,", "BATCH_SIZE: 2,").replace(
    "base: {", "base: {DATASET.STAGE: $NEARBY/here, "
)


def test_images_in_files_are_trained_on_and_read_from_a_disk_nearby(tmp_path, monkeypatch):
    """Three classes of one training image each: two steps, of a teacher and a student."""
    write_imagenet(tmp_path / "sets/mine", per_class=1)
    project = new_project(tmp_path / "project", STREAMED)
    declare = ("python", "-m", "distillbench", "data", "declare", str(tmp_path / "sets/mine"), "--name", "mine")
    succeeded(project.call(*declare, "--like", "imagenet"))
    monkeypatch.setenv(copies.VARIABLE, str(tmp_path / "sets"))
    monkeypatch.setenv("NEARBY", str(tmp_path / "scratch"))
    succeeded(project.snakemake("results/suites/small/metrics.csv", "--config", "suite=small", "workers=1"))
    (staged,) = (tmp_path / "scratch/here").iterdir()
    images = sorted(path.relative_to(staged) for path in staged.rglob("*.JPEG"))
    assert images == sorted(path.relative_to(tmp_path / "sets/mine") for path in (tmp_path / "sets").rglob("*.JPEG"))
    records = [json.loads(path.read_text()) for path in (project.path / "results/runs").rglob("record.json")]
    assert len(records) == 2 and {record["images"]["folder"] for record in records} == {str(tmp_path / "sets/mine")}
    assert {record["source"]["stage"] for record in records} == {"$NEARBY/here"}
    shutil.rmtree(staged / "train")
    for path in (project.path / "results/runs").rglob("predictions.npz"):
        path.unlink()
    succeeded(project.snakemake("results/suites/small/metrics.csv", "--config", "suite=small", "workers=1"))
    assert not (staged / "train").exists(), "predictions read the test images alone"

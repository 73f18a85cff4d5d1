"""DVC records whatever Snakemake made: on a copy of the project with a suite of a teacher and a student."""

import json
import os
import random
import shutil

import pytest
import yaml
from project import ROOT, SMALL, Project, new_project, succeeded

SUITE = SMALL.replace("[0, 1]", "[0]").replace("  NONE: {DISTILLER.TYPE: NONE}\n", "").replace(", control: NONE", "")
OTHER = SUITE.replace("  KD: ", "  NONE: {DISTILLER.TYPE: NONE, SOLVER.LR: 0.01}\n  KD: ")
BLOCK = "/results/suites/\n/reports/\n"
TABLES = ("reports/small/tables", "results/suites")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """What a bare `snakemake` leaves."""
    project = new_project(tmp_path_factory.mktemp("made") / "project", SUITE)
    assert len(project.build()["train"]) == 2
    return project


@pytest.fixture(scope="session")
def recorded(made, tmp_path_factory):
    """The same, recorded by somebody who keeps the tables in git."""
    project = copy(made, tmp_path_factory.mktemp("recorded") / "project")
    project.edit(BLOCK, "", ".gitignore")
    project.dvc("repro", "small")
    project.commit()
    return project


@pytest.fixture
def project(recorded, tmp_path):
    return copy(recorded, tmp_path / "project")


@pytest.fixture
def pushed(project, tmp_path):
    """With a remote that has everything."""
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    project.dvc("push")
    project.commit()
    return project


def copy(project, path):
    return Project(shutil.copytree(project.path, path, symlinks=True))


def clone(project, path):
    project.git("clone", "-q", ".", str(path))
    return Project(path)


def contents(project, *folders):
    """{path in the project: content}"""
    return {path.relative_to(project.path): content for path, (content, _) in project.files(*folders).items()}


def runs_file(project):
    (output,) = yaml.safe_load((project.path / "results/runs.dvc").read_text())["outs"]
    return output


def test_only_the_demo_is_a_stage_and_no_run_is_recorded_in_the_project_itself():
    assert list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]) == ["demo"]


def test_a_bare_snakemake_leaves_git_clean_and_its_tables_are_metrics(made, tmp_path):
    assert made.git_status() == ""
    (metrics,) = json.loads(made.dvc("metrics", "show", "--json")).values()
    (file,) = metrics["data"].values()
    assert file["data"]["KD"]["resnet8-resnet8"]["n"] == 1
    assert made.git_status() == ""


def test_runs_of_a_bare_snakemake_are_recorded_by_the_next_repro(made, project):
    assert project.trained() == made.trained()
    shutil.rmtree(project.path / "results/runs")
    project.dvc("checkout")
    assert contents(project, "results/runs") == contents(made, "results/runs")


def test_a_second_repro_trains_and_changes_nothing(project):
    before = project.files("results/runs", *TABLES)
    project.dvc("repro", "small")
    assert project.files("results/runs", *TABLES) == before
    assert project.git_status() == ""


def test_a_clone_with_lock_and_tables_but_without_runs_trains(project, tmp_path):
    other = clone(project, tmp_path / "clone")
    assert (other.path / "dvc.lock").exists() and (other.path / "reports/small/tables/main.csv").exists()
    other.dvc("repro", "small")
    assert other.trained().keys() == project.trained().keys()
    assert runs_file(other)["nfiles"] == runs_file(project)["nfiles"]


def test_a_failed_run_loses_no_finished_run_and_no_table(project):
    project.add("  BAD: {DISTILLER.TYPE: NONE, SOLVER.LR: 1.0e+30}\n  KD2: {like: KD, KD.TEMPERATURE: 2}\n")
    before, tables = project.trained(), contents(project, "reports/small/figures", *TABLES[:1])
    result = project.call("dvc", "repro", "small")
    assert result.returncode != 0 and "failed to reproduce" in result.stderr
    after = contents(project, "results/runs")
    assert len(project.trained()) == len(before) + 1
    project.dvc("checkout", "--force")
    assert contents(project, "results/runs") == after
    shutil.rmtree(project.path / "results/runs")
    project.dvc("checkout")
    assert contents(project, "results/runs") == after
    assert contents(project, "reports/small/figures", *TABLES[:1]).items() >= tables.items()


@pytest.mark.parametrize("part", ["everything", "predictions"])
def test_what_was_pulled_is_not_trained_again_and_gives_the_same_tables(pushed, tmp_path, part):
    other = clone(pushed, tmp_path / "clone")
    other.dvc("pull", *{"everything": (), "predictions": ("--glob", "results/runs/**/eval/**")}[part])
    assert bool(list((other.path / "results/runs").rglob("model.*.pt"))) == (part == "everything")
    generator = random.Random(0)
    for path in [*other.files("results/runs", "src", "workflow", "params")]:
        time = generator.randint(1_000_000_000, 1_700_000_000)
        os.utime(path, (time, time))
    for folder in TABLES:
        shutil.rmtree(other.path / folder)
    runs = other.files("results/runs")
    other.dvc("repro", "small")
    assert other.files("results/runs") == runs
    assert contents(other, *TABLES) == contents(pushed, *TABLES)
    assert runs_file(other) == runs_file(pushed)


def test_a_run_recorded_beside_pulled_predictions_takes_no_checkpoint_out(pushed, tmp_path):
    other = clone(pushed, tmp_path / "clone")
    other.dvc("pull", "--glob", "results/runs/**/eval/**")
    new = other.path / "results/runs/digits/resnet8/none/s7-0123456789ab/spec.json"
    new.parent.mkdir()
    new.write_text("{}")
    succeeded(other.call("python", "-m", "distillbench", "record"))
    other.dvc("push")
    other.dvc("pull")
    expected = contents(pushed, "results/runs") | {new.relative_to(other.path): b"{}"}
    assert contents(other, "results/runs") == expected


def test_metrics_and_plots_are_compared_with_a_commit(project):
    project.edit("  KD: ", "  KD4: ")
    project.dvc("repro", "small")
    assert len(project.trained()) == 2
    (changes,) = json.loads(project.dvc("metrics", "diff", "--json")).values()
    accuracy = changes["KD4.resnet8-resnet8.top1"]
    assert accuracy == {"old": None, "new": changes["KD.resnet8-resnet8.top1"]["old"]}
    project.dvc("plots", "show")
    page = (project.path / "dvc_plots/index.html").read_text()
    assert "last_mean" in page and "KD4" in page
    assert "dvc_plots" not in project.git_status()


def test_runs_of_two_people_are_united_and_none_trains_again(made, tmp_path):
    """From the empty record on, which every project starts with."""
    ours = copy(made, tmp_path / "ours")
    theirs = clone(made, tmp_path / "theirs")
    for project in (ours, theirs):
        project.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    ours.dvc("repro", "small")
    (theirs.path / "params/other.yaml").write_text(OTHER)
    assert len(theirs.build("suite=other", "only=NONE")["train"]) == 1
    succeeded(theirs.call("python", "-m", "distillbench", "record"))
    for project in (ours, theirs):
        project.dvc("push")
        project.commit()
    ours.git("config", "merge.dvc.driver", "dvc git-hook merge-driver --ancestor %O --our %A --their %B")
    ours.git("pull", "-q", "--no-rebase", "--no-edit", str(theirs.path))
    ours.dvc("pull")
    assert len(ours.trained()) == 3
    assert "train" not in ours.plan() and "train" not in ours.plan("suite=other", "only=NONE")

"""DVC records whatever Snakemake made: on a copy of the project with a suite of a teacher and a student."""

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest
import stores
import yaml
from project import GIT, ROOT, SMALL, WITHOUT_POWER, Project, jobs, new_project, succeeded
from published import md5, publish

from distillbench.config import components
from distillbench.errors import UserError
from distillbench.files import write_atomically
from distillbench.store import dvc

SUITE = SMALL.replace("[0, 1]", "[0]").replace("  NONE: {DISTILLER.TYPE: NONE}\n", "").replace(", control: NONE", "")
BLOCK = "/results/suites/\n/reports/\n"
LIGHT = "dvc ls . results/runs -R --dvc-only | grep -v '[.]pt$' | sed 's|^|results/runs/|' | xargs dvc pull"
DRIVER = "dvc git-hook merge-driver --ancestor %O --our %A --their %B"
TABLES = ("reports/small/tables", "results/suites")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """What a bare `snakemake` leaves."""
    project = new_project(tmp_path_factory.mktemp("made") / "project", SUITE)
    assert len(project.build()["run"]) == 2
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


@pytest.fixture
def light(tmp_path):
    """A project with recorded and pushed runs that were never trained, for what depends on their names alone."""
    project = new_project(tmp_path / "project", SUITE)
    stores.finish_all(project.path)
    succeeded(record(project))
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
    assert not (ROOT / "results/runs.dvc").exists()


@pytest.mark.parametrize("remote", [True, False], ids=["remote", "no remote"])
def test_bare_commands_of_dvc_in_a_clone_without_data_and_runs(tmp_path, remote):
    project = clone(new_project(tmp_path / "project", SUITE), tmp_path / "clone")
    if remote:
        project.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
        project.commit()
    (project.path / "results/runs/digits").mkdir(parents=True)  # nothing there is nothing to record
    succeeded(record(project))
    assert "up to date" in project.dvc("pull")
    assert "always changed" in project.dvc("status")
    assert "Running stage 'small'" in project.dvc("repro", "--dry")
    assert project.git_status() == ""


def test_a_bare_snakemake_leaves_git_clean_and_its_tables_are_metrics(made, tmp_path):
    assert made.git_status() == ""
    (metrics,) = json.loads(made.dvc("metrics", "show", "--json")).values()
    (file,) = metrics["data"].values()
    assert file["data"]["KD"]["resnet8-resnet8"]["n"] == 1
    assert made.git_status() == ""


def test_runs_of_a_bare_snakemake_are_recorded_by_the_next_repro(made, project):
    """Though no parameter and no table changed since the last one."""
    (project.path / "results/runs.dvc").unlink()
    project.dvc("repro", "small")
    assert project.git_status() == ""
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
    (other.path / "profiles/short").mkdir()
    (other.path / "profiles/short/profile.yaml").write_text("cores: all\nomit-from: [tables]\n")
    succeeded(other.call("env", "SNAKEMAKE_PROFILE=profiles/short", "dvc", "repro", "small"))
    assert other.trained().keys() == project.trained().keys()
    assert runs_file(other)["nfiles"] == runs_file(project)["nfiles"]


def test_a_failed_run_loses_no_finished_run_and_no_table(made, tmp_path):
    project = copy(made, tmp_path / "project")
    project.add("  BAD: {DISTILLER.TYPE: NONE, SOLVER.LR: 1.0e+30}\n")
    runs, tables = contents(project, "results/runs"), contents(project, "reports")
    result = project.call("dvc", "repro", "small")
    assert result.returncode != 0 and "failed to reproduce" in result.stderr
    assert contents(project, "reports").items() >= tables.items()
    project.dvc("checkout", "--force")
    assert contents(project, "results/runs") == runs
    shutil.rmtree(project.path / "results/runs")
    project.dvc("checkout")
    assert contents(project, "results/runs") == runs


@pytest.mark.parametrize("part", ["everything", "all but checkpoints"])
def test_what_was_pulled_is_not_trained_again_and_gives_the_same_tables(pushed, tmp_path, part):
    other = clone(pushed, tmp_path / "clone")
    pull(other, part)
    generator = random.Random(0)
    for path in other.files("results/runs", "src", "workflow", "params"):
        time = generator.randint(1_000_000_000, 1_700_000_000)
        os.utime(path, (time, time))
    for folder in TABLES:
        shutil.rmtree(other.path / folder)
    runs, trained = contents(other, "results/runs"), other.trained()
    other.dvc("repro", "small")
    assert contents(other, "results/runs") == runs and other.trained() == trained
    assert contents(other, *TABLES) == contents(pushed, *TABLES)
    assert runs_file(other) == runs_file(pushed)


def pull(project, part):
    succeeded(project.call("bash", "-c", {"everything": "dvc pull", "all but checkpoints": LIGHT}[part]))
    assert bool(list((project.path / "results/runs").rglob("model.*.pt"))) == (part == "everything")


def test_a_run_recorded_after_a_partial_pull_takes_no_checkpoint_out(light, tmp_path):
    other = clone(light, tmp_path / "clone")
    pull(other, "all but checkpoints")
    new = add_run(other, "s7-0123456789ab")
    other.dvc("push")
    other.dvc("pull")
    assert contents(other, "results/runs") == contents(light, "results/runs") | {new: b"{}"}


def add_run(project, name, content=b"{}"):
    """Something new to record; what is in it does not matter to DVC."""
    path = project.path / "results/runs/digits/resnet8/none" / name / "spec.json"
    path.parent.mkdir()
    path.write_bytes(content)
    succeeded(record(project))
    return path.relative_to(project.path)


def record(project):
    return project.call("python", "-m", "distillbench", "record")


def test_a_new_file_with_the_bytes_of_one_that_is_not_here_takes_none_out(light, tmp_path):
    other = clone(light, tmp_path / "clone")
    pull(other, "all but checkpoints")
    bytes_of_weights = next(
        content for path, content in contents(light, "results/runs").items() if path.suffix == ".pt"
    )
    new = add_run(other, "s7-0123456789ab", bytes_of_weights)
    other.dvc("push")
    other.dvc("pull")
    assert contents(other, "results/runs") == contents(light, "results/runs") | {new: bytes_of_weights}


def test_what_dvc_takes_for_a_renamed_file_stays_recorded_where_nothing_else_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old, new = (f"results/runs/digits/resnet8/none/s{n}-0123456789ab" for n in (0, 7))
    write_atomically(tmp_path / new / "spec.json", "{}")
    write_atomically(tmp_path / "results/runs.dvc", "outs: [{path: runs, nfiles: 1}]")
    said, asked = {"uncommitted": {"renamed": [{"old": f"{old}/spec.json", "new": f"{new}/spec.json"}]}}, []
    monkeypatch.setattr(dvc, "_dvc", lambda *arguments: asked.append(arguments) or json.dumps(said))
    dvc.record_runs()
    assert asked[1:] == [("add", new)]  # commit would take the old one out


def test_a_record_in_a_remote_that_cannot_be_read_is_not_replaced(light, tmp_path):
    other = clone(light, tmp_path / "clone")
    before = runs_file(other)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    path = other.path / "results/runs/digits/resnet8/none/s7-0123456789ab/spec.json"
    path.parent.mkdir(parents=True)
    assert record(other).returncode == 2 and runs_file(other) == before, "with no run here at all"
    path.write_text("{}")
    result = record(other)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and "dvc fetch" in result.stderr
    assert runs_file(other) == before
    other.dvc("remote", "remove", "store")
    result = record(other)
    assert result.returncode == 0 and "begins anew" in result.stderr
    assert runs_file(other)["nfiles"] == 1


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_writing_replaces_a_link_into_a_cache(tmp_path, link):
    cached, path = tmp_path / "cached", tmp_path / "file"
    cached.write_text("old")
    link(cached, path)
    write_atomically(path, "new")
    assert (path.read_text(), cached.read_text()) == ("new", "old")


def test_read_only_files_are_replaced_and_the_cache_keeps_what_it_had(project):
    """DVC makes what it links into its cache read-only, for everyone but root."""
    project.dvc("config", "cache.type", "hardlink")
    project.dvc("checkout", "--relink", "results/runs.dvc")
    (metrics, *_) = (project.path / "results/runs").rglob("metrics.json")
    assert project.call(*WITHOUT_POWER, "python", "-c", f"open({str(metrics)!r}, 'a')").returncode == 1
    code = "src/distillbench/tasks/classification/metrics.py"
    build = (*WITHOUT_POWER, "snakemake", "--profile", "profiles/local", "--config", "suite=small")
    project.add('\n\n@metric("error")\ndef error(predictions):\n    return 1 / 0\n', code)
    before, failed = contents(project, "results/runs"), project.call(*build)
    assert failed.returncode == 1 and "PermissionError" not in failed.stderr
    assert contents(project, "results/runs") == before
    project.edit("1 / 0", "1.0", code)
    (student,) = (project.path / "results/runs").rglob("kd/s0-*")
    (student / "model.last.pt").unlink()
    shutil.rmtree(next(student.glob("eval/test-last-*")))
    before = project.trained()
    assert len(jobs(succeeded(project.call(*build, "-n")))["run"]) == 2
    assert len(jobs(succeeded(project.call(*build)))["run"]) == 2
    assert len(project.trained().items() - before.items()) == 1
    succeeded(project.call(*WITHOUT_POWER, "python", "-m", "distillbench", "record"))
    assert "up to date" in project.dvc("status", "results/runs.dvc")
    cached = [path for path in (project.path / ".dvc/cache/files/md5").glob("*/*") if path.suffix != ".dir"]
    assert cached and all(hashlib.md5(p.read_bytes()).hexdigest() == p.parent.name + p.name for p in cached)


@pytest.mark.parametrize("link", ["results", "results/runs", "results/runs/digits"])
def test_a_folder_that_is_a_link_is_not_recorded_and_the_reason_is_said(project, tmp_path, link):
    (project.path / link).rename(tmp_path / "disk")
    (project.path / link).symlink_to(tmp_path / "disk")
    before = runs_file(project)
    result = record(project)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and line.startswith(f"distillbench: {link} is a link") and "cache.dir" in line
    assert runs_file(project) == before


def test_a_failure_of_dvc_has_a_reason(project, monkeypatch):
    """Whatever it printed, and where."""
    monkeypatch.chdir(project.path)
    with pytest.raises(UserError, match=r"dvc commit: .*no-such[.]dvc"):
        dvc._dvc("commit", "--force", "no-such.dvc")
    for code in ("raise SystemExit(3)", "raise SystemExit('out of luck')", "print('out of luck'); raise SystemExit(1)"):
        monkeypatch.setenv("PYTHONPATH", str(project.path))
        (project.path / "dvc.py").write_text(code)
        with pytest.raises(UserError, match=r"dvc commit: (exit code 3|out of luck)"):
            dvc._dvc("commit")


FOLDERS = ["reports", ".snakemake", *(f"results/{n}" for n in ("runs", "work", "data", "logs", "specs", "suites"))]


def test_what_the_pipeline_makes_may_lie_on_another_disk_and_is_no_business_of_git(made, tmp_path):
    project = copy(made, tmp_path / "project")
    for name in FOLDERS:
        disk = tmp_path / "disk" / name
        disk.parent.mkdir(parents=True, exist_ok=True)
        (project.path / name).rename(disk) if (project.path / name).exists() else disk.mkdir()
        (project.path / name).symlink_to(disk)
    project.git("add", ".")
    assert project.git_status() == ""


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


def test_runs_of_two_clones_are_united_and_none_trains_again(made, tmp_path):
    """From the first record on, which each of them makes."""
    clones = {"kd": copy(made, tmp_path / "ours"), "none": copy(made, tmp_path / "theirs")}
    for missing, project in clones.items():
        (path,) = (project.path / "results/runs/digits").glob(f"*/{missing}")
        shutil.rmtree(path)
        project.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
        succeeded(project.call("python", "-m", "distillbench", "record"))
        project.dvc("push")
        project.commit()
    ours, theirs = clones.values()
    merge = ours.call(*GIT, "pull", "--no-rebase", str(theirs.path))
    assert "Merge conflict in results/runs.dvc" in merge.stdout
    ours.git("checkout", "--theirs", "results/runs.dvc")
    succeeded(ours.call("python", "-m", "distillbench", "record"))
    ours.commit()
    ours.dvc("pull")
    assert contents(ours, "results/runs") == contents(made, "results/runs")
    assert not {"train", "run"} & set(ours.plan())


def test_runs_of_two_branches_are_united_by_the_merge_driver(project):
    project.git("config", "merge.dvc.driver", DRIVER)
    project.git("switch", "-q", "-c", "branch")
    theirs = add_run(project, "s7-0123456789ab")
    project.commit()
    project.git("switch", "-q", "-")
    project.dvc("checkout")
    ours = add_run(project, "s8-0123456789ab")
    project.commit()
    project.git("merge", "-q", "branch")
    project.dvc("checkout")
    assert {ours, theirs} < contents(project, "results/runs").keys()
    assert not {"train", "run"} & set(project.plan())


# Data


@pytest.fixture
def published(tmp_path, monkeypatch):
    """(a project in which a small archive is the published CIFAR-100, that archive)."""
    archive, _ = publish("cifar100", tmp_path / "sets", monkeypatch)
    project = new_project(tmp_path / "project", SUITE)
    declared, file = components.datasets()["cifar100"], "src/distillbench/data/cifar100.py"
    for field, old in {"num_train": 50000, "num_test": 10000, "num_classes": 100}.items():
        project.edit(f"{field} = {old}\n", f"{field} = {declared[field]}\n", file)
    project.edit(components.packaged("dataset")["cifar100"]["md5"], declared["md5"], file)
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    project.commit()
    return project, archive


def prepare(project, *options):
    return project.call("python", "-m", "distillbench", "data", "cifar100", *options)


@pytest.mark.parametrize("place", ["in the project", "elsewhere"])
def test_a_tracked_archive_is_what_a_clone_pulls_and_prepares_from(published, tmp_path, monkeypatch, place):
    project, archive = published
    monkeypatch.delenv("DISTILLBENCH_DATA", raising=False)
    if place == "in the project":
        (project.path / "data").mkdir()
        archive = shutil.copy(archive, project.path / "data")
    else:
        monkeypatch.setenv("DISTILLBENCH_DATA", str(archive.parent))
    succeeded(prepare(project, "--track"))
    succeeded(prepare(project, "--track"))
    file = f"data/{os.path.basename(archive)}"
    assert project.git_status().split() == ["??", "data/"]
    project.commit()
    assert project.git("ls-files", "data").split() == [f"{file}.dvc"]
    (output,) = yaml.safe_load((project.path / f"{file}.dvc").read_text())["outs"]
    assert output["md5"] == md5(Path(archive)) and Path(archive).exists()
    (project.path / "results/runs").mkdir()
    succeeded(record(project))
    project.dvc("push")
    other = clone(project, tmp_path / "clone")
    monkeypatch.delenv("DISTILLBENCH_DATA", raising=False)
    other.dvc("status")
    other.dvc("pull")
    assert md5(other.path / file) == output["md5"] and other.git_status() == ""
    succeeded(prepare(other))
    assert "up to date" in other.dvc("status", f"{file}.dvc")


def test_another_file_in_the_place_of_a_tracked_archive_is_refused(published, monkeypatch):
    project, archive = published
    monkeypatch.setenv("DISTILLBENCH_DATA", str(archive.parent))
    (project.path / "data").mkdir()
    (project.path / "data" / archive.name).write_bytes(b"another")
    result = prepare(project, "--track")
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and "tracks another file than the published one" in line


def test_the_documentation_has_the_commands_that_are_tested_here():
    text = (ROOT / "docs/sharing.md").read_text()
    assert all(command in text for command in (LIGHT, DRIVER))
    assert BLOCK in (ROOT / ".gitignore").read_text()

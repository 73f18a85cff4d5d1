"""The workflow in a temporary copy of the project, with a suite of five short runs."""

import os
import random
import re
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import stores
import yaml
from project import ROOT, SMALL, Project, jobs, new_project, succeeded

from distillbench.files import read_json, write_atomically
from distillbench.store import Store
from distillbench.store.layout import RUN_FILES
from distillbench.store.tables import HEADER_BYTES, Key, as_bytes, header_of, size_of

REPORTS = [f"tables/main.{ending}" for ending in ("csv", "json", "md", "tex")]
REPORTS += [f"figures/accuracy.{ending}" for ending in ("pdf", "png")]
REPORTS += ["index.html", "paper/main.tex", "paper/numbers.tex", "paper/references.bib", "paper/example.tex"]
REPORTS += ["paper/accuracy.pdf"]
METRICS = "src/distillbench/tasks/classification/metrics.py"


@pytest.fixture
def fresh(tmp_path):
    """A project without results."""
    return new_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    project = new_project(tmp_path_factory.mktemp("workflow") / "project")
    assert len(project.build()["run"]) == 5
    return project


@pytest.fixture
def project(finished, tmp_path):
    """A project whose suite `small` is done."""
    return Project(shutil.copytree(finished.path, tmp_path / "project", symlinks=True))


def names(project, runs):
    return {project.index()[run] for run in runs}


def test_the_default_target_is_reached_and_git_stays_clean(project):
    assert all((project.path / "reports/small" / name).stat().st_size for name in REPORTS)
    rows = project.rows("reports/small/tables/main.csv")
    assert rows and {row["n"] for row in rows if row["row"] != "Teacher"} == {"2"}
    assert len(project.trained()) == 5
    assert project.git_status() == ""


def test_a_dry_run_leaves_git_clean_and_nothing_trained(fresh):
    planned = fresh.plan()
    assert len(planned["run"]) == 5 and "train" not in planned
    assert planned["tables"] == planned["figures"] == planned["report"] == {"small"}
    assert fresh.git_status() == ""
    assert not fresh.trained()


def test_matched_teachers_are_trained_with_the_students_of_their_seed(fresh):
    """Every cell gets a run before any gets two."""
    fresh.edit("teachers: {", "teacher_seed: matched\nteachers: {")
    output = succeeded(fresh.snakemake("-n", "--config", "suite=small"))
    found = re.findall(r"^rule run:\n(?:    .*\n)*?    wildcards: run=(\S+)\n    priority: (\d+)", output, re.MULTILINE)
    priorities = {fresh.index()[run]: int(priority) for run, priority in found}
    assert priorities == {
        **dict.fromkeys([("Teacher", 1000), ("NONE", 0), ("KD", 0)], 2),
        **dict.fromkeys([("Teacher", 1001), ("NONE", 1), ("KD", 1)], 1),
    }


def test_a_second_call_does_nothing(project):
    before = project.files("results/runs", "results/suites", "reports")
    output = succeeded(project.snakemake("--config", "suite=small"))
    assert "Nothing to be done" in output
    assert project.files("results/runs", "results/suites", "reports") == before


def test_an_edited_value_trains_the_affected_runs_and_reverting_none(project):
    project.edit("TEMPERATURE: 4", "TEMPERATURE: 3")
    planned = project.plan()["run"]
    assert names(project, planned) == {("KD", 0), ("KD", 1)}
    assert not planned & set(project.trained())
    project.edit("TEMPERATURE: 3", "TEMPERATURE: 4")
    assert not {"train", "run"} & set(project.plan())


def test_edits_of_what_is_included_are_noticed_as_those_of_the_suites_own_file(project):
    own, section, rows = (project.path / "params/small.yaml").read_text().partition("methods:")
    (project.path / "params/common").mkdir(exist_ok=True)
    (project.path / (shared := "params/common/small.yaml")).write_text(section + rows)
    (project.path / "params/small.yaml").write_text(f"include: common/small.yaml\n{own}")
    assert project.build().keys() == {"report", "all"}, "the same runs"
    project.add("# a comment\n", shared)
    assert project.plan().keys() == {"report", "all"}
    project.edit("TEMPERATURE: 4", "TEMPERATURE: 3", shared)
    assert names(project, project.plan()["run"]) == {("KD", 0), ("KD", 1)}


def test_an_added_method_trains_only_what_is_new(project):
    project.add("  KD2: {like: KD, KD.TEMPERATURE: 2, control: NONE}\n")
    assert names(project, project.plan()["run"]) == {("KD2", 0), ("KD2", 1)}


def test_an_added_seed_trains_only_what_is_new(project):
    project.edit("seeds: [0, 1]", "seeds: [0, 1, 2]")
    assert names(project, project.plan()["run"]) == {("NONE", 2), ("KD", 2)}


def test_an_added_seed_without_the_teachers_weights_trains_the_teacher_but_no_old_student(project):
    before = project.trained()
    teacher = next(run for run, (row, _) in project.index().items() if row == "Teacher")
    (project.path / "results/runs" / teacher / "model.last.pt").unlink()
    assert not {"train", "run"} & set(project.plan()), "a missing checkpoint alone is no reason to train"
    project.edit("seeds: [0, 1]", "seeds: [0, 1, 2]")
    done = project.build()
    assert done["train"] == {teacher} and names(project, done["run"]) == {("NONE", 2), ("KD", 2)}
    after = project.trained()
    changed = {run for run in after if before.get(run) != after[run]}
    assert names(project, changed) == {("Teacher", 0), ("NONE", 2), ("KD", 2)}


def test_two_names_of_one_specification_train_once(fresh):
    fresh.add("  same: {like: KD, control: NONE}\n")
    assert len(fresh.plan()["run"]) == 5


def test_two_suites_share_runs_and_leave_each_others_files_alone(project):
    small = project.files("results/suites/small", "reports/small", "results/runs", "results/specs")
    row = "  KD2: {like: KD, KD.TEMPERATURE: 2, control: NONE}\n"
    (project.path / "params/other.yaml").write_text(SMALL.replace("seeds: [0, 1]", "seeds: [0]") + row)
    done = project.build("suite=other")
    assert len(done["run"]) == 1
    assert {row["row"] for row in project.rows("reports/other/tables/main.csv")} >= {"NONE", "KD", "KD2"}
    after = project.files("results/suites/small", "reports/small", "results/runs", "results/specs")
    assert {path: after.get(path) for path in small} == small
    assert "Nothing to be done" in succeeded(project.snakemake("-n", "--config", "suite=small"))


def test_a_new_metric_trains_and_predicts_nothing(project):
    before, predictions = project.trained(), predicted(project)
    code = "\n\n@metric('error rate')\ndef error(predictions):\n    return 100 - top1(predictions)\n"
    project.add(code, METRICS)
    done = project.build()
    assert len(done["run"]) == 5 and "train" not in done
    assert project.trained() == before and predicted(project) == predictions
    assert "error" in {row["metric"] for row in project.rows("results/suites/small/metrics.csv")}
    assert re.search(r"\| error rate +\|", (project.path / "reports/small/tables/details.md").read_text())


def predicted(project):
    """{path: (content, time of change)} of all predictions"""
    return {path: file for path, file in project.files("results/runs").items() if path.name == "predictions.npz"}


def contents(project):
    return {path: content for path, (content, _) in project.files("results/runs").items()}


def test_training_again_trains_the_teacher_first_and_keeps_the_old_runs_until_then(project):
    planned = jobs(succeeded(project.snakemake("-n", "-R", "train", "--config", "suite=small")))
    assert len(planned["train"]) == len(planned["run"]) == 5 and planned["report"]
    kept = contents(project)
    data = project.path / "results/data/digits.npz"
    content = data.read_bytes()
    data.write_bytes(b"damaged")
    part = ("--config", "suite=small", "only=KD/*/s0")
    assert project.snakemake("-R", "train", *part).returncode == 1
    assert contents(project) == kept, "a failed one replaces nothing"
    data.write_bytes(content)
    before = project.trained()
    done = jobs(succeeded(project.snakemake("-R", "train", *part)))
    after = project.trained()
    changed = {run for run in after if before[run] != after[run]}
    assert names(project, changed) == {("Teacher", 0), ("KD", 0)} == names(project, done["run"])
    teacher, student = sorted(changed, key=lambda run: project.index()[run], reverse=True)
    assert after[teacher] < after[student]
    assert not {"train", "run"} & set(project.plan())


def test_what_was_made_of_other_weights_is_renewed_whatever_its_time(project):
    run = next(run for run, (row, _) in project.index().items() if row == "Teacher")
    (path,) = (project.path / "results/runs" / run).glob("eval/test-last-*/predictions.npz")
    with np.load(path) as archive:
        content = {**archive, "weights_sha256": "0" * 64}
    np.savez(path, **content)
    for file in (project.path / "results/runs").rglob("*.*"):
        os.utime(file, (1_000_000_000, 1_000_000_000 + (file == path)))
    planned = project.plan()
    assert names(project, planned["run"]) == {("Teacher", 0), ("KD", 0), ("KD", 1)} and "train" not in planned
    assert planned["tables"] == planned["report"] == {"small"}
    for weights in (project.path / "results/runs" / run).glob("model.*.pt"):
        weights.unlink()
    planned = project.plan()
    assert names(project, planned["run"]) == {("KD", 0), ("KD", 1)} and "train" not in planned, "nothing can renew it"
    status = succeeded(project.call(sys.executable, "-m", "distillbench", "status", "small"))
    assert f"stale    {run}: predictions of other weights" in status


@pytest.mark.parametrize("name", ["spec.json", "record.json"])
def test_a_damaged_run_does_not_keep_others_from_being_planned(project, name):
    run = next(run for run, (row, seed) in project.index().items() if (row, seed) == ("NONE", 0))
    (project.path / "results/runs" / run / name).write_text("{")
    project.edit("seeds: [0, 1]", "seeds: [0, 1, 2]")
    assert names(project, project.plan()["run"]) == {("NONE", 2), ("KD", 2)}


@pytest.mark.parametrize("file", ["tables.py", "sheets/main.py", "figures/matplotlibrc"])
def test_edited_code_of_the_tables_rebuilds_them_and_trains_nothing(project, file):
    project.add("# edited\n", f"src/distillbench/reporting/{file}")
    planned = project.plan()
    assert planned["tables"] == {"small"}
    assert not {"train", "run", "collect"} & set(planned)


@pytest.mark.parametrize("file", ["page.html", "page.py", "paper.py", "evidence.py", "render/table.html"])
def test_edited_code_of_the_report_rebuilds_it_and_trains_nothing(project, file):
    project.add("\n", f"src/distillbench/reporting/{file}")
    planned = project.plan()
    assert planned["report"] == {"small"} and not {"train", "run", "collect"} & set(planned)


@pytest.mark.parametrize("seed", [0, 1])
def test_predictions_without_checkpoints_and_with_any_times_train_nothing(project, seed):
    generator = random.Random(seed)
    for path in sorted((project.path / "results/runs").rglob("*"), reverse=True):
        if path.match("model.*.pt"):
            path.unlink()
        else:
            time = generator.randint(1_000_000_000, 1_900_000_000)
            os.utime(path, (time, time))
    assert not {"train", "data"} & set(project.plan())


def test_predictions_alone_give_the_same_table_and_train_nothing(project):
    table = (project.path / "reports/small/tables/main.csv").read_bytes()
    for path in (project.path / "results/runs").rglob("*"):
        if path.is_file() and path.name != "predictions.npz":
            path.unlink()
    for folder in ("reports", "results/suites", ".snakemake"):
        shutil.rmtree(project.path / folder)
    done = project.build()
    assert not {"train", "data"} & set(done) and len(done["run"]) == 5
    assert (project.path / "reports/small/tables/main.csv").read_bytes() == table


def test_a_failed_run_stops_no_other_and_shows_in_its_cell(project):
    project.add("  BAD: {DISTILLER.TYPE: NONE, SOLVER.LR: 1.0e+30, control: NONE}\n")
    project.add("  KD2: {like: KD, KD.TEMPERATURE: 2, control: NONE}\n")
    before = project.trained()
    result = project.snakemake("--config", "suite=small")
    assert result.returncode == 1
    assert names(project, project.trained().keys() - before.keys()) == {("KD2", 0), ("KD2", 1)}
    lines = (project.path / "reports/small/tables/partial-main.md").read_text().splitlines()
    bad = next(line for line in lines if re.match(r"\|\s*BAD\b", line))
    assert "failed (0/2) [1]" in bad
    note = next(line for line in lines if line.startswith("[1] failed: BAD, resnet8-resnet8, s0: "))
    assert len(re.findall(r"s[01]: \w+ is (nan|inf) in epoch 1", note)) == 2
    assert not (project.path / "reports/small/tables/main.md").read_text().count("BAD")
    page = (project.path / "reports/small/partial.html").read_text()
    assert "PARTIAL: 7 of 9 runs" in page and "[1] failed: BAD" in page
    assert ">BAD<" not in (project.path / "reports/small/index.html").read_text(), "the complete page stays"


KILL = "import os, signal; os.killpg(os.getpgrp(), signal.SIGKILL)"


@pytest.mark.parametrize("end", ["1 / 0", f"exec({KILL!r})"], ids=["a failure", "a kill"])
def test_what_was_trained_stays_whatever_becomes_of_its_job(fresh, end):
    metric = "\n\n@metric('error')\ndef error(predictions):\n    return float(bool({}))\n"
    fresh.add(metric.format(end), METRICS)
    part = ("--config", "suite=small", "only=NONE/*/s0")
    killed = fresh.call("setsid", "--wait", sys.executable, "-m", "snakemake", "--profile", "profiles/local", *part)
    assert killed.returncode != 0
    before, predictions = fresh.trained(), predicted(fresh)
    assert len(before) == 1 and len(predictions) == 2
    fresh.snakemake("--unlock", *part)
    fresh.edit(end, "1", METRICS)
    assert len(jobs(succeeded(fresh.snakemake(*part)))["run"]) == 1
    assert fresh.trained() == before and predicted(fresh) == predictions


@pytest.mark.parametrize("config", [["suite=small"], ["suite=small", "only=KD"]], ids=" ".join)
def test_no_rule_makes_files_of_another_suite_or_of_a_part(fresh, config):
    """Also where the line that says so does not know the target."""
    fresh.edit("require_whole_suite(sys.argv[1:])", "pass", "workflow/rules/common.smk")
    suite = "small" if len(config) > 1 else "demo"
    for name in (
        f"reports/{suite}/tables/main.md",
        f"results/suites/{suite}/metrics.csv",
        f"reports/{suite}/index.html",
    ):
        result = fresh.snakemake("-n", "--config", *config, "--", name)
        assert result.returncode == 1 and f"No rule to produce {name}" in result.stdout + result.stderr


def test_the_workflow_leaves_what_is_not_its_own_in_its_folders(project):
    mine = ["paper/mine.tex", "figures/scale.pdf", "tables/partial-mine.md", "mine.md"]
    for name in mine:
        (project.path / "reports/small" / name).write_text("mine")
    (project.path / "reports/small/paper/main.tex").write_text("edited")
    project.add("\n", "src/distillbench/reporting/paper.py")
    (project.path / "reports/small/tables/main.csv").unlink()
    assert project.build()["report"] == {"small"}
    assert {(project.path / "reports/small" / name).read_text() for name in mine} == {"mine"}
    assert "tabular" in (project.path / "reports/small/paper/main.tex").read_text()


def test_the_workflow_deletes_nothing_behind_a_link(project, tmp_path):
    """Where Snakemake removes the outputs of a job before it runs."""
    mine = tmp_path / "article"
    mine.mkdir()
    (mine / "main.tex").write_text("mine")
    for folder in ("paper", "tables"):
        shutil.rmtree(project.path / "reports/small" / folder)
        (project.path / "reports/small" / folder).symlink_to(mine)
        (mine / "main.md").write_text("mine")
        assert project.snakemake("--config", "suite=small").returncode == 1
        assert [(mine / name).read_text() for name in ("main.tex", "main.md")] == ["mine", "mine"], folder


def test_only_trains_a_part_with_the_teacher_that_it_needs(fresh):
    planned = fresh.plan("suite=small", "only=KD/*/s1")
    assert names(fresh, planned["run"]) == {("Teacher", 0), ("KD", 1)}
    assert not {"collect", "tables", "figures", "report"} & set(planned)
    assert names(fresh, fresh.plan("suite=small", "only=NONE")["run"]) == {("NONE", 0), ("NONE", 1)}


@pytest.mark.parametrize(
    "config, yaml, says",
    [
        (["suite=small", "--", "reports/demo/tables/main.md"], "", "--config suite=demo"),
        (["suite=small", "--", "./results/suites/demo/metrics.csv"], "", "--config suite=demo"),
        (["suite=demo", "--", "reports/small/index.html"], "", "--config suite=small"),
        (["suite=small", "only=KD", "--", "reports/small/figures/curves.pdf"], "", "leave out only=KD"),
        (["suite=small", "only=KD", "--", "reports/small/paper/main.tex"], "", "leave out only=KD"),
        (["suite=smal"], "", "small"),
        (["suite=7"], "", "suite=7"),
        (["suite=small", "only=2019"], "", "only=2019"),
        (["suite=small", "only=KDD"], "", "only=KDD"),
        (["suit=small"], "", "suit"),
        (["suite=small"], "  KD2: {like: KD, KD.TEMPERATUR: 2}\n", "TEMPERATURE"),
    ],
    ids=[
        *("another suite's table", "its metrics", "its page", "a part's figure", "a part's paper", "suite"),
        *("a number", "only a number", "only", "config key", "key in params"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(fresh, config, yaml, says):
    fresh.add(yaml)
    result = fresh.snakemake("-n", "--config", *config)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Using ")]
    assert result.returncode == 2, result.stdout + result.stderr
    assert len(lines) == 1 and lines[0].startswith("distillbench: ") and says in lines[0], lines
    assert "Traceback" not in result.stdout


def test_a_folder_that_a_logger_left_is_no_package(project):
    """A dry run says so, before every run fails; what is trained needs no logger."""
    (project.path / "wandb").mkdir()
    project.edit("base: {", "base: {LOG: {WANDB: true}, ")
    project.plan()
    project.edit("seeds: [0, 1]", "seeds: [0, 1, 2]")
    result = project.snakemake("-n", "--config", "suite=small")
    assert result.returncode == 2 and "distillbench: LOG.WANDB is true and wandb is not installed" in result.stderr


@pytest.mark.parametrize("profile, device, gpus", [("local", "cpu", "0"), ("gpu", "cuda", "1")])
def test_the_profile_says_the_device_and_what_it_takes_of_it(fresh, profile, device, gpus):
    """Not the machine: a demo on the CPU stays there where there is a GPU."""
    output = succeeded(
        fresh.call("snakemake", "-n", "-p", "--profile", f"profiles/{profile}", "--config", "suite=small")
    )
    commands = re.findall(r"distillbench complete .*--device (\S+)", output)
    assert len(commands) == 5 and set(commands) == {device}
    blocks = re.findall(r"^rule run:\n((?:    .*\n)*)", output, re.MULTILINE)
    assert len(blocks) == 5 and all(f"gpu={gpus}" in block for block in blocks)
    limited = yaml.safe_load((ROOT / f"profiles/{profile}/profile.yaml").read_text()).get("resources", {})
    assert limited == ({"gpu": 1} if profile == "gpu" else {}), "so many jobs on the GPU at a time"


MPS = """\
#!/bin/sh
read question
test "$question" = get_default_active_thread_percentage && echo {answer}
exit {code}
"""


@pytest.mark.parametrize(
    "slots, profile, daemon, says",
    [
        ("4", "gpu", None, "No such file"),
        ("4", "gpu", ("Cannot find MPS control daemon process", 1), "Cannot find MPS control daemon process"),
        ("4", "gpu", ("", 1), "says nothing"),
        ("4", "local", ("100.0", 0), "--profile profiles/gpu"),
        ("0", "gpu", ("100.0", 0), "from 1 on"),
        ("", "gpu", ("100.0", 0), "from 1 on"),
        ("4", "gpu", ("100.0", 0), 4),
        ("1", "gpu", None, 1),
    ],
    ids=["no MPS", "no daemon", "mute", "no GPU", "none", "empty", "four", "one"],
)
def test_jobs_share_a_gpu_only_where_an_mps_daemon_answers(stored, monkeypatch, slots, profile, daemon, says, capsys):
    monkeypatch.setenv("PATH", str(stored / "bin"), prepend=None if daemon is None else os.pathsep)
    if daemon:
        (stored / "bin").mkdir()
        (stored / "bin/nvidia-cuda-mps-control").write_text(MPS.format(answer=daemon[0], code=daemon[1]))
        (stored / "bin/nvidia-cuda-mps-control").chmod(0o755)
    gpus = {"gpu": SimpleNamespace(value=1)} if profile == "gpu" else {}
    if isinstance(says, int):
        assert functions(stored, monkeypatch, gpus=gpus, gpu_slots=slots).workflow.registered == {"gpu": says}
        return
    with pytest.raises(SystemExit) as refused:
        functions(stored, monkeypatch, gpus=gpus, gpu_slots=slots)
    (line,) = capsys.readouterr().err.splitlines()
    assert refused.value.code == 2 and line.startswith(f"distillbench: gpu_slots={slots}: ") and says in line


def test_snakemake_lets_so_many_jobs_share_a_gpu(fresh, monkeypatch):
    control = fresh.path / "bin/nvidia-cuda-mps-control"
    control.parent.mkdir()
    control.write_text(MPS.format(answer="100.0", code=0))
    control.chmod(0o755)
    monkeypatch.setenv("PATH", f"{control.parent}{os.pathsep}{os.environ['PATH']}")
    config = ("--profile", "profiles/gpu", "--config", "suite=small", "gpu_slots=3")
    assert re.search(r"Provided resources: gpu=.*\b3\b", succeeded(fresh.call("snakemake", *config, "--", IMAGES)))
    control.unlink()
    assert fresh.call("snakemake", "-n", *config).returncode == 2


@pytest.mark.parametrize("name", ["007", "2026_11", "-x"])
def test_a_suite_is_the_one_that_was_typed_whatever_number_it_may_be(fresh, name):
    for seed, other in enumerate(["7", "202611", "007", "2026_11", "-x"]):
        (fresh.path / f"params/{other}.yaml").write_text(SMALL.replace("[0, 1]", f"[{seed + 5}]"))
    (seed,) = {run.rpartition("/s")[2].partition("-")[0] for run in fresh.plan(f"suite={name}", "only=NONE")["run"]}
    assert (fresh.path / f"params/{name}.yaml").read_text().count(f"seeds: [{seed}]")


def test_a_job_of_its_own_process_works_on_the_same_suite_and_part(fresh):
    """Snakemake starts it with a command line of its own making, and the workflow is parsed again there."""
    row = "it's \\ $HOME `x`"
    (fresh.path / "params/007.yaml").write_text(SMALL + f'  "{row.replace(chr(92), chr(92) * 2)}": {{like: KD}}\n')
    fresh.add(
        '\n\nrule nested:\n    output: "nested.txt"\n    run:\n'
        '        open(output[0], "w").write(f"{workflow.is_main_process} {SUITE} {ONLY}")\n',
        "Snakefile",
    )
    succeeded(fresh.snakemake("nested.txt", "--config", "suite=007", f"only={row}"))
    assert (fresh.path / "nested.txt").read_text() == f"False 007 {row}"


def test_snakemake_lint_is_clean(fresh):
    succeeded(fresh.snakemake("--lint"))


def test_planning_imports_no_torch_and_no_numpy(fresh):
    check = "assert not {'torch', 'numpy'} & set(sys.modules)"
    code = f"import sys; from distillbench.planning import plan_suite; plan_suite('small'); {check}"
    succeeded(fresh.call(sys.executable, "-c", code))


def test_runs_are_trained_seed_by_seed_and_evaluated_at_once(project):
    project.add("  LOW: {DISTILLER.TYPE: NONE, SOLVER.LR: 0.01}\n")
    output = succeeded(project.snakemake("--cores", "1", "--config", "suite=small", "only=LOW"))
    order = re.findall(r"(?:rule|localrule) (train|run):|wildcards: run=\S+/(s\d)-", output)
    assert [rule or seed for rule, seed in order] == [word for seed in ("s0", "s1") for word in ("run", seed)]


@pytest.mark.parametrize("what", [[], ["--predictions"]], ids=["with weights", "predictions"])
def test_after_an_import_nothing_is_trained_or_predicted(project, what):
    command = (sys.executable, "-m", "distillbench")
    succeeded(project.call(*command, "export", "small", "--out", "small.tar", *what))
    runs = {path: content for path, (content, _) in project.files("results/runs").items()}
    for folder in ("results", "reports"):
        shutil.rmtree(project.path / folder)
    assert succeeded(project.call(*command, "import", "small.tar")).count("imported ") == 5
    planned = project.plan()
    assert planned["tables"] == {"small"} and not {"train", "run", "data"} & set(planned)
    arrived = {path: content for path, (content, _) in project.files("results/runs").items()}
    assert arrived == {path: content for path, content in runs.items() if not (what and path.match("*.pt"))}
    lines = succeeded(project.call(*command, "explain", "small", "KD")).splitlines()
    assert sum(re.match(r"s[01]  done ", line) is not None for line in lines) == 2


# The functions from wildcards to files, called without Snakemake


def functions(root, monkeypatch, forced=(), forceall=False, main=True, gpus=(), **config):
    """What workflow/rules/common.smk defines, in a folder with a suite `small`; main: in the main process."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("DISTILLBENCH_AGAIN", "")
    text = (ROOT / "workflow/rules/common.smk").read_text()
    constraints = re.compile(r"^wildcard_constraints:\n(    .*\n)+", re.MULTILINE)  # the one thing that is no Python
    assert len(constraints.findall(text)) == 1
    settings = SimpleNamespace(forcerun=frozenset(forced), targets=(), forcetargets=False, forceall=forceall)
    registered = {}
    defined = {
        "config": {"suite": "small", **config},
        "workflow": SimpleNamespace(
            is_main_process=main,
            config_settings=SimpleNamespace(config_args=[f"{k}={v}" for k, v in {"suite": "small", **config}.items()]),
            dag_settings=settings,
            dag=SimpleNamespace(forcefiles=set()),
            global_resources=dict(gpus),
            register_resource=registered.__setitem__,
            registered=registered,
        ),
        "ancient": lambda path: f"ancient {path}",
    }
    exec(compile(constraints.sub("", text), "common.smk", "exec"), defined)
    return SimpleNamespace(**defined)


def of(run):
    return SimpleNamespace(run=run)


@pytest.fixture
def stored(tmp_path):
    """A folder with a suite whose runs are finished; its teacher's `best` checkpoint teaches."""
    suite = stores.SUITE.replace("pairs:", "teachers: {checkpoint: best}\npairs:")
    stores.new_project(tmp_path, suite)
    stores.finish_all(tmp_path)
    return tmp_path


def without(store, run, *names):
    for name in names:
        for path in store.run(run).rglob(name):
            path.unlink()


def evaluations(store, run, name):
    return [f"{store.evaluation(run, checkpoint)}/{name}" for checkpoint in ("last", "best")]


def old(*paths):
    return [f"ancient {path}" for path in paths]


CODE = [METRICS, METRICS.replace("metrics.py", "predictions.py")]
IMAGES = "results/data/digits.npz"


def test_a_training_needs_its_specification_its_images_and_its_teacher_whole(stored, monkeypatch):
    rules, runs = functions(stored, monkeypatch), stores.runs(stored)
    teacher, student, store = runs["Teacher/s0"], runs["KD/s1"], rules.STORE
    assert [rules.run_input(of(run)) for run in runs.values()] == [CODE] * 5
    assert [rules.training_input(of(run)) for run in runs.values()] == [[]] * 5
    without(store, student, "record.json", "predictions.npz", "metrics.json")
    needed = [f"results/specs/{student}.json", IMAGES, *evaluations(store, teacher, "metrics.json")]
    rules = functions(stored, monkeypatch, table="never")  # as the next call of Snakemake reads them
    assert rules.training_input(of(student)) == old(*needed)
    assert rules.run_input(of(student)) == [*old(*needed), *CODE]
    without(store, teacher, "model.last.pt")  # not the one that teaches
    assert rules.run_input(of(student)) == [*old(*needed), *CODE]
    without(store, teacher, "model.best.pt")
    weights = [f"results/runs/{teacher}/{name}" for name in ("spec.json", "record.json", "model.best.pt")]
    assert rules.run_input(of(student)) == [*old(*needed, *weights), *CODE]
    assert rules.run_input(of(teacher)) == CODE
    assert rules.training_input(of(teacher)) == old(f"results/specs/{teacher}.json", IMAGES)
    without(store, teacher, "metrics.json", "predictions.npz")  # now its own job makes it whole
    rules = functions(stored, monkeypatch, table="never")
    assert rules.run_input(of(student)) == [*old(*needed), *CODE]
    assert rules.run_input(of(teacher)) == [*old(f"results/specs/{teacher}.json", IMAGES), *CODE]


def test_a_training_needs_the_table_that_is_planned(stored, monkeypatch):
    rules, runs = functions(stored, monkeypatch), stores.runs(stored)
    teacher, student, store = runs["Teacher/s0"], runs["KD/s1"], rules.STORE
    table, key = f"results/tables/{teacher}/best.logits", Key(teacher, "best")
    without(store, student, "record.json", "predictions.npz", "metrics.json")
    rules = functions(stored, monkeypatch)
    assert rules.training_input(of(student))[-1] == table == rules.run_input(of(student))[-1 - len(CODE)]
    assert table in rules.workflow.dag.forcefiles
    assert rules.run_input(of(runs["KD/s0"])) == CODE and rules.training_input(of(runs["KD/s0"])) == [], (
        "it is finished"
    )
    made_from = old(IMAGES, *evaluations(store, teacher, "metrics.json"))
    assert rules.table_input(SimpleNamespace(run=teacher, checkpoint="best")) == made_from
    job = functions(stored, monkeypatch, main=False)
    assert table not in job.training_input(of(student)), "nothing is written down"
    rules.write_down_tables()
    job = functions(stored, monkeypatch, main=False)
    assert job.training_input(of(student))[-1] == table and not job.workflow.dag.forcefiles
    specification = store.specification(student)
    header = header_of(specification, key, store.record(teacher)["weights"]["best"])
    write_atomically(
        stored / table, as_bytes({**header, "content": ""}) + bytes(size_of(header["shape"]) - HEADER_BYTES)
    )
    rules = functions(stored, monkeypatch)
    assert rules.training_input(of(student))[-1] == table and not rules.workflow.dag.forcefiles
    assert rules.table_option(of(student)) == ""
    again = functions(stored, monkeypatch, forced=[f"results/runs/{teacher}/model.best.pt"])
    assert again.training_input(of(student))[-1] == table and table in again.workflow.dag.forcefiles
    made_from = [IMAGES, *(f"results/runs/{teacher}/{name}" for name in RUN_FILES)]
    assert again.table_input(SimpleNamespace(run=teacher, checkpoint="best")) == made_from
    never = functions(stored, monkeypatch, table="never")
    assert table not in never.training_input(of(student)) and never.table_option(of(student)) == "--table never"


def test_a_decision_that_cannot_be_written_down_is_one_line(stored, monkeypatch, capsys):
    (stored / "results/tables").write_text("in the way")
    with pytest.raises(SystemExit) as end:
        functions(stored, monkeypatch).write_down_tables()
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.startswith("distillbench: ") and "results/tables" in line


def test_a_forced_training_follows_its_teachers(stored, monkeypatch):
    rules, runs = functions(stored, monkeypatch, forced=["train"]), stores.runs(stored)
    teacher, student = runs["Teacher/s0"], runs["KD/s1"]
    own = {f"results/runs/{student}/{name}" for name in RUN_FILES}
    assert own < set(rules.run_input(of(student))), "its training comes first"
    for needed in (rules.run_input(of(student)), rules.training_input(of(student))):
        assert set(evaluations(rules.STORE, teacher, "metrics.json")) < set(needed)
        assert not any("ancient" in name for name in needed)
    assert rules.again_option(of(student)) == "--again"
    assert os.environ["DISTILLBENCH_AGAIN"].split() == [student]
    rules.workflow.is_main_process = False  # a job elsewhere, in the environment that it was started in
    assert [name for name, run in runs.items() if rules.again_option(of(run))] == ["KD/s1"]
    one = functions(stored, monkeypatch, forced=[f"results/runs/{runs['KD/s0']}/history.csv"])
    assert [name for name, run in runs.items() if one.again(run)] == ["KD/s0"]
    every = functions(stored, monkeypatch, forceall=True)
    assert all(every.again(run) for run in runs.values())
    none = functions(stored, monkeypatch)
    assert not any(none.again(run) or none.again_option(of(run)) for run in runs.values())


def test_metrics_follow_a_teacher_that_is_trained_again(stored, monkeypatch):
    runs = stores.runs(stored)
    teacher, student = runs["Teacher/s0"], runs["KD/s1"]
    rules = functions(stored, monkeypatch, forced=[f"results/runs/{teacher}/model.best.pt"])
    assert rules.run_input(of(student)) == [*evaluations(rules.STORE, teacher, "metrics.json"), *CODE]
    assert rules.run_input(of(runs["NONE/s0"])) == CODE
    assert rules.workflow.dag.forcefiles == set(evaluations(rules.STORE, student, "metrics.json"))


def test_an_evaluation_needs_what_it_is_made_from_and_nothing_where_it_is_there(stored, monkeypatch):
    rules, runs = functions(stored, monkeypatch), stores.runs(stored)
    student, teacher, store = runs["KD/s1"], runs["Teacher/s0"], rules.STORE
    taught = evaluations(store, teacher, "metrics.json")
    without(store, teacher, "predictions.npz")
    assert rules.run_input(of(student)) == rules.run_input(of(teacher)) == [], "metrics alone are enough"
    without(store, student, "metrics.json")
    rules = functions(stored, monkeypatch)
    assert rules.run_input(of(student)) == [*old(IMAGES, *taught), *CODE], "the teacher predicts again"
    without(store, teacher, "model.best.pt")
    weights = [f"results/runs/{teacher}/{name}" for name in ("spec.json", "record.json", "model.best.pt")]
    assert rules.run_input(of(student)) == [*old(IMAGES, *taught, *weights), *CODE]
    without(store, runs["NONE/s0"], "metrics.json", "predictions.npz")
    without(store, runs["NONE/s1"], "metrics.json", "model.last.pt")
    rules = functions(stored, monkeypatch)
    assert rules.run_input(of(runs["NONE/s0"])) == [*old(IMAGES), *CODE]
    assert rules.run_input(of(runs["NONE/s1"])) == CODE
    urgent = {name: rules.urgency(of(runs[name])) for name in ("NONE/s0", "NONE/s1", "KD/s1")}
    assert set(urgent.values()) == {1000}, "what is trained is in the tables at once"


def test_every_run_is_evaluated_and_reports_are_those_of_whole_suites(stored, monkeypatch):
    rules, runs = functions(stored, monkeypatch), stores.runs(stored)
    assert set(rules.all_metrics()) == {
        p for run in runs.values() for p in evaluations(rules.STORE, run, "metrics.json")
    }
    reports = {path.removeprefix("reports/small/") for path in rules.reports()}
    assert {"tables/main.md", "tables/main.json", "tables/details.csv", "index.html", "paper/numbers.tex"} < reports
    assert {"figures/accuracy.png", "figures/differences.pdf"} < reports
    part = functions(stored, monkeypatch, only="NONE")
    assert part.reports() == []
    assert set(part.all_metrics()) == {
        path for name in ("NONE/s0", "NONE/s1") for path in evaluations(part.STORE, runs[name], "metrics.json")
    }


def test_runs_are_more_urgent_the_smaller_their_seed(stored, monkeypatch):
    for path in (stored / "results/runs").rglob("*.*"):
        path.unlink()
    rules, runs = functions(stored, monkeypatch), stores.runs(stored)
    urgent = {name: rules.urgency(of(run)) for name, run in runs.items()}
    assert urgent == {"Teacher/s0": 2, "NONE/s0": 2, "KD/s0": 2, "NONE/s1": 1, "KD/s1": 1}


def test_a_run_has_the_threads_of_its_specification_and_the_device_of_its_resources(tmp_path, monkeypatch):
    stores.new_project(tmp_path, stores.SUITE.replace("pairs:", "base: {SOLVER.THREADS: 3}\npairs:"))
    rules = functions(tmp_path, monkeypatch)
    assert {rules.run_threads(of(run)) for run in rules.PLAN.runs} == {3}
    for gpu, device in ((0, "cpu"), (1, "cuda")):
        assert {rules.run_device(of(run), SimpleNamespace(gpu=gpu)) for run in rules.PLAN.runs} == {device}


def test_workers_have_cores_of_their_own_where_images_are_decoded(tmp_path, monkeypatch, capsys):
    pair = "{teacher: ResNet34, student: ResNet18}"
    imagenet = stores.SUITE.replace("digits", "imagenet").replace("{teacher: resnet20, student: resnet8}", pair)
    for name, suite, given, threads in (("a", stores.SUITE, "4", 1), ("b", imagenet, "4", 5), ("c", imagenet, None, 1)):
        stores.new_project(tmp_path / name, suite)
        rules = functions(tmp_path / name, monkeypatch, **({"workers": given} if given else {}))
        assert {rules.run_threads(of(run)) for run in rules.PLAN.runs} == {threads}
        options = {rules.workers_option(of(run)) for run in rules.PLAN.runs}
        assert options == {f"--workers {given}" if given else ""}
    with pytest.raises(SystemExit):
        functions(tmp_path / "c", monkeypatch, workers="-1")
    assert capsys.readouterr().err == "distillbench: workers=-1: is no number of processes from 0 on\n"


def test_what_was_made_from_something_else_is_made_again(stored, monkeypatch):
    rules, runs = functions(stored, monkeypatch), stores.runs(stored)
    store, teacher, student = rules.STORE, runs["Teacher/s0"], runs["KD/s1"]
    taught, own = evaluations(store, teacher, "metrics.json"), evaluations(store, student, "metrics.json")
    assert [rules.run_input(of(run)) for run in runs.values()] == [CODE] * 5
    assert not rules.workflow.dag.forcefiles
    stores.finish(store, teacher, weight=2.0)
    rules = functions(stored, monkeypatch)  # as the next call of Snakemake reads them
    assert [rules.training_input(of(run)) for run in runs.values()] == [[]] * 5
    assert rules.run_input(of(student)) == [*old(*taught), *CODE] and rules.run_input(of(teacher)) == CODE
    assert rules.workflow.dag.forcefiles == set(own)
    record = store.run(student) / "record.json"
    record.write_text(record.read_text().replace(read_json(record)["weights"]["last"], "7" * 64))
    rules = functions(stored, monkeypatch)
    assert rules.run_input(of(student)) == [*old(IMAGES, *taught), *CODE]
    assert rules.workflow.dag.forcefiles == set(own)
    (store.run(student) / "model.last.pt").unlink()  # they cannot be made again
    rules = functions(stored, monkeypatch)
    assert rules.run_input(of(student)) == CODE and not rules.workflow.dag.forcefiles


def test_metrics_follow_a_teacher_whose_predictions_are_renewed(stored, monkeypatch):
    rules, runs = functions(stored, monkeypatch), stores.runs(stored)
    teacher, student, store = runs["Teacher/s0"], runs["KD/s1"], rules.STORE
    record = store.run(teacher) / "record.json"
    record.write_text(record.read_text().replace(read_json(record)["weights"]["best"], "7" * 64))
    rules = functions(stored, monkeypatch)
    assert rules.run_input(of(teacher)) == [*old(IMAGES), *CODE]
    assert rules.run_input(of(student)) == [*evaluations(store, teacher, "metrics.json"), *CODE]
    forced = {path for run in (teacher, student) for path in evaluations(store, run, "metrics.json")}
    assert rules.workflow.dag.forcefiles == forced


def test_stale_metrics_are_renewed_also_where_predictions_are_missing(stored, monkeypatch):
    """As long as nothing has to be trained for that."""
    store, runs = Store(stored), stores.runs(stored)
    teacher, student = runs["Teacher/s0"], runs["KD/s1"]
    stores.finish(store, student, weight=2.0)
    record = store.run(student) / "record.json"
    record.write_text(record.read_text().replace(read_json(record)["weights"]["last"], "7" * 64))
    without(store, teacher, "predictions.npz")
    rules = functions(stored, monkeypatch)
    taught = evaluations(rules.STORE, teacher, "metrics.json")
    assert rules.run_input(of(student)) == [*old(IMAGES, *taught), *CODE]
    assert rules.workflow.dag.forcefiles == set(evaluations(rules.STORE, student, "metrics.json"))
    without(store, teacher, "model.best.pt")
    rules = functions(stored, monkeypatch)
    assert rules.run_input(of(student)) == [] and not rules.workflow.dag.forcefiles


def test_a_table_is_made_for_the_students_that_look_up_in_it(project):
    """It comes, goes, and is of any age: nothing of what is finished is trained again."""
    teacher = next(run for run, (row, _) in project.index().items() if row == "Teacher")
    path = project.path / f"results/tables/{teacher}/last.logits"
    before, always = project.trained(), ("suite=small", "table=always")
    assert project.plan(*always) == {}
    project.add("  KD2: {like: KD, KD.TEMPERATURE: 2, control: NONE}\n")
    assert "table" not in project.plan(), "two epochs are no reason to make one"
    done = project.build(*always)
    assert done["table"] == {teacher} and names(project, done["run"]) == {("KD2", 0), ("KD2", 1)}
    after = project.trained()
    assert {run: after[run] for run in before} == before and project.git_status() == " M params/small.yaml\n"
    records = [read_json(project.path / "results/runs" / run / "record.json") for run in after.keys() - before]
    assert [record["engine"]["teacher_source"] for record in records] == ["table", "table"]
    written = read_json(project.path / "results/tables/small.json")["tables"]
    assert [(table["key"]["run"], table["used"]) for table in written] == [(teacher, True)]
    for time in (1_000_000_000, 4_000_000_000):
        os.utime(path, (time, time))
        assert not {"table", "train", "run"} & set(project.plan(*always))
    project.add("  KD3: {like: KD, KD.TEMPERATURE: 3, control: NONE}\n")
    assert "table" not in project.plan(*always), "it is there, however old or new"
    assert "table" not in project.plan("suite=small", "table=never")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    result = project.snakemake("-n", "--config", *always)
    assert f"results/tables/{teacher}/last.logits: is not whole; it is made again\n" in result.stderr
    planned = jobs(succeeded(result))
    assert planned["table"] == {teacher} and names(project, planned["run"]) == {("KD3", 0), ("KD3", 1)}
    succeeded(project.snakemake(f"results/tables/{teacher}/last.logits", "--force", "--config", *always))
    assert path.read_bytes() == whole
    path.unlink()
    assert names(project, project.plan()["run"]) == {("KD3", 0), ("KD3", 1)}, "and nothing else"


def test_a_mode_that_there_is_not_is_one_line(project):
    result = project.snakemake("-n", "--config", "suite=small", "table=allways")
    assert result.returncode == 2
    assert result.stderr.splitlines()[1:] == [
        "distillbench: table=allways: unknown mode 'allways'; did you mean always?"
    ]

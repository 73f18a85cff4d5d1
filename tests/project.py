"""A temporary copy of the project with a suite `small` of short runs, and the commands that people use there."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from published import write_cifar

from distillbench.commands import program, types
from distillbench.data import copies

ROOT = Path(__file__).parents[1]
COPIED = ("Snakefile", "workflow", "src", "params", "profiles", "environment.yml", ".gitignore")
COPIED += ("dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitattributes")
POWERS = "-dac_override,-dac_read_search"  # root's, to write and read what permissions do not allow
WITHOUT_POWER = () if os.geteuid() else ("setpriv", "--bounding-set", POWERS, "--inh-caps", POWERS)
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
SMALL = """\
dataset: digits
seeds: [0, 1]
base: {SOLVER: {EPOCHS: 1, BATCH_SIZE: 100, LR: 0.05, LR_DECAY_STAGES: [1]}}
teachers: {SOLVER: {EPOCHS: 1, LR: 0.1}}
pairs: [{teacher: resnet8, student: resnet8}]
methods:
  NONE: {DISTILLER.TYPE: NONE}
  KD: {DISTILLER.TYPE: KD, KD: {TEMPERATURE: 4}, control: NONE}
"""


def parsed(words):
    """{name: value} of a command line after `distillbench`, read and not run; the suites and runs in it need not be."""
    with (
        patch.object(types.SuiteName, "checked", types.Text.checked),
        patch.object(types.RunName, "checked", types.Text.checked),
    ):
        return program.commands[words[0]].make_context(words[0], list(words[1:])).params


class Project:
    """A copy of the project at `path`."""

    def __init__(self, path):
        self.path = path

    def call(self, *command):
        path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
        env = os.environ | {"PYTHONPATH": str(self.path / "src"), "PATH": path}
        env |= {"DVC_SITE_CACHE_DIR": str(self.path.parent / "dvc")}
        return subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True, timeout=300)

    def snakemake(self, *arguments):
        return self.call(sys.executable, "-m", "snakemake", "--profile", "profiles/local", *arguments)

    def build(self, *config):
        """Run the workflow, successfully; returns {rule: wildcards of its jobs}."""
        return jobs(succeeded(self.snakemake("--config", *(config or ["suite=small"]))))

    def plan(self, *config):
        """The same, dry."""
        return jobs(succeeded(self.snakemake("-n", "--config", *(config or ["suite=small"]))))

    def trained(self):
        """{run id: when its record was written}"""
        runs = self.path / "results/runs"
        return {path.parent.relative_to(runs).as_posix(): path.stat().st_mtime_ns for path in runs.rglob("record.json")}

    def files(self, *folders):
        """{path: (content, time of change)}"""
        paths = [path for folder in folders for path in (self.path / folder).rglob("*") if path.is_file()]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}

    def rows(self, file):
        with open(self.path / file, newline="") as lines:
            return list(csv.DictReader(lines))

    def index(self):
        """{run id: (row, seed)}, a teacher's row being Teacher."""
        return {row["run"]: (row["row"], int(row["seed"])) for row in self.rows("results/suites/small/index.csv")}

    def edit(self, old, new, file="params/small.yaml"):
        text = (self.path / file).read_text()
        assert text.count(old) == 1
        (self.path / file).write_text(text.replace(old, new))

    def add(self, text, file="params/small.yaml"):
        with open(self.path / file, "a") as stream:
            stream.write(text)

    def git(self, *arguments):
        return succeeded(self.call(*GIT, *arguments))

    def git_status(self):
        return self.git("status", "--porcelain")

    def commit(self):
        self.git("add", ".")
        self.git("commit", "-q", "-m", "a commit")

    def dvc(self, *arguments):
        return succeeded(self.call("dvc", *arguments))


def succeeded(result):
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    return output


def jobs(output):
    """{rule: set of the first wildcards of its jobs} that Snakemake names in its output."""
    found = {}
    for rule, block in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", output, re.MULTILINE):
        wildcards = re.search(r"^    wildcards: \w+=([^\s,]+)", block, re.MULTILINE)
        found.setdefault(rule, set()).add(wildcards[1] if wildcards else "")
    return found


def project_with_own_images(tmp_path, monkeypatch, suite):
    """A project with a suite on the dataset `mine`, declared, whose images lie where DISTILLBENCH_DATA says."""
    write_cifar(tmp_path / "sets/mine")
    project = new_project(tmp_path / "project", suite)
    declare = ("python", "-m", "distillbench", "data", "declare", str(tmp_path / "sets/mine"), "--name", "mine")
    succeeded(project.call(*declare, "--like", "cifar100"))
    monkeypatch.setenv(copies.VARIABLE, str(tmp_path / "sets"))
    return project


def new_project(path, suite=SMALL):
    for name in COPIED:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, path / name)
    (path / "params/small.yaml").write_text(suite)
    (path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text().replace("demo", "small"))
    project = Project(path)
    project.git("init", "-q")
    project.commit()
    return project

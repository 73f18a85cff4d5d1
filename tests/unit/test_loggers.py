"""TensorBoard and Weights & Biases: off by default, refused where not installed, fed with every epoch."""

import csv
import json
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from distillbench import loggers
from distillbench.commands import main
from distillbench.config.suite import load_suite
from distillbench.errors import UserError
from distillbench.files import to_json, write_atomically
from distillbench.store.layout import RUN_FILES

STANDS_IN = """\
import json, pathlib
calls = pathlib.Path(__file__).with_name("calls.jsonl")
def note(*entry):
    with open(calls, "a") as file:
        file.write(json.dumps(entry) + "\\n")
class Run:
    def log(self, row, step):
        note("log", row, step)
    def finish(self):
        note("finish")
def init(**options):
    note("init", {**options, "dir": str(options["dir"])})
    return Run()
"""
SUITE = """\
dataset: digits
seeds: [0]
base: {{{log}SOLVER: {{EPOCHS: 2, BATCH_SIZE: 300, LR_DECAY_STAGES: [1]}}}}
pairs: [{{teacher: resnet8, student: resnet8}}]
methods: {{NONE: {{DISTILLER.TYPE: NONE}}}}
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """A module `wandb` that writes down its calls; returns the file."""
    install(tmp_path, monkeypatch, "wandb", STANDS_IN)
    yield tmp_path / "modules/calls.jsonl"
    sys.modules.pop("wandb", None)


def install(folder, monkeypatch, name, text):
    (folder / "modules").mkdir()
    (folder / f"modules/{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder / "modules")


class Writer:
    """In place of torch.utils.tensorboard's, which needs the package."""

    def __init__(self, folder):
        self.folder, self.scalars, self.closed = folder, [], False
        self.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def close(self):
        self.closed = True


@pytest.fixture
def writers(tmp_path, monkeypatch):
    Writer.made = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    install(tmp_path, monkeypatch, "tensorboard", "")
    return Writer.made


def suite(folder, log=""):
    (folder / "params").mkdir(exist_ok=True)
    (folder / "params/logged.yaml").write_text(SUITE.format(log=log))
    return load_suite("logged", folder)


def test_asking_for_a_logger_changes_no_run(tmp_path):
    plain, logged = suite(tmp_path), suite(tmp_path, "LOG: {WANDB: true, TENSORBOARD: true}, ")
    assert plain.runs.keys() == logged.runs.keys()
    run = next(iter(plain.runs))
    assert plain.loggers(run) == [] and logged.loggers(run) == ["tensorboard", "wandb"]


def train_logged(folder, package, **solver):
    """Train the suite's run with a logger; returns (exit code, its specification)."""
    suite(folder)
    path = folder / "params/logged.yaml"
    keys = "".join(f"{key}: {value}, " for key, value in solver.items())
    path.write_text(path.read_text().replace("SOLVER: {", f"SOLVER: {{{keys}"))
    specification = next(iter(load_suite("logged", folder).runs.values()))
    (folder / "spec.json").write_text(to_json(specification.as_file()))
    assert main(["data", "digits"]) == 0
    code = main(["train", "--spec", "spec.json", "--out", "out", "--device", "cpu", "--log", package])
    return code, specification


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working directory, in which `python -m` looks for packages first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("package, left_over", [("wandb", False), ("wandb", True), ("tensorboard", True)])
def test_a_logger_that_is_not_installed_is_refused_before_training_in_one_line(project, capsys, package, left_over):
    """Not even where an earlier run left a folder, which Python takes for a package."""
    assert find_spec(package) is None, f"{package} is installed here: this test is of environments without it"
    if left_over:
        (project / package).mkdir()
    assert train_logged(project, package)[0] == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and loggers.KEYS[package] in lines[0] and f"pip install {package}" in lines[0]
    assert not (project / "out").exists()
    assert f"pip install {package}" in (project / "out.work/failure.json").read_text()


@pytest.mark.parametrize(
    "package, content, says",
    [
        ("wandb", b"import a_dependency_that_is_gone", "No module named 'a_dependency_that_is_gone'"),
        ("wandb", b"# no init here", "cannot import name 'init'"),
        ("wandb", b"import os; os._exit(9)", "exit code 9"),
        ("wandb", b"\xff", "utf-8"),
        ("tensorboard", b"__version__ = '2.0.0'", "No module named 'tensorboard."),
    ],
)
def test_a_logger_that_cannot_be_imported_is_one_line_while_planning(project, package, content, says):
    (project / package).mkdir()
    (project / package / "__init__.py").write_bytes(content)
    with pytest.raises(UserError, match=loggers.KEYS[package]) as error:
        loggers.require_imports([package])
    assert says in str(error.value) and "\n" not in str(error.value)


def test_plan_says_that_a_logger_is_missing_as_long_as_a_run_needs_it(project, capsys):
    (run,) = suite(project, "LOG: {WANDB: true}, ").runs
    assert main(["plan", "logged"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("note: LOG.WANDB is true and wandb is not installed")
    for name in RUN_FILES:
        write_atomically(project / f"results/runs/{run}/{name}", "{}")
    main(["plan", "logged"])
    assert "note: LOG." not in capsys.readouterr().out


def test_every_epoch_is_logged_as_history_has_it(project, wandb):
    code, specification = train_logged(project, "wandb")
    first, *logged, last = [json.loads(line) for line in wandb.read_text().splitlines()]
    assert code == 0 and first[0] == "init" and first[1]["config"] == specification.data and last == ["finish"]
    assert first[1]["dir"] == "results/logs"  # which git ignores
    assert [step for _, _, step in logged] == [1, 2]
    header, *lines = (project / "out/history.csv").read_text().splitlines()
    assert [list(map(str, row.values())) for _, row, _ in logged] == [line.split(",") for line in lines]
    assert list(logged[0][1]) == header.split(",")


def test_tensorboard_gets_every_number_of_every_epoch(project, writers):
    code, specification = train_logged(project, "tensorboard")
    (writer,) = writers
    assert code == 0 and writer.closed and str(writer.folder) == f"results/logs/tensorboard/{specification.id}"
    with open(project / "out/history.csv") as file:
        rows = list(csv.DictReader(file))
    expected = {(name.replace("_", "/", 1), value, int(row["epoch"])) for row in rows for name, value in row.items()}
    assert {(name, str(value), step) for name, value, step in writer.scalars} == expected


@pytest.mark.parametrize("lr, code", [("1.0e+30", 1), ("0.05", 0)], ids=["fails", "ends"])
def test_a_logger_is_closed_however_a_run_ends(project, wandb, lr, code):
    assert train_logged(project, "wandb", LR=lr)[0] == code
    assert json.loads(wandb.read_text().splitlines()[-1]) == ["finish"]


def test_a_finished_run_opens_no_logger(project, wandb):
    train_logged(project, "wandb")
    calls = wandb.read_text()
    assert train_logged(project, "wandb")[0] == 0
    assert wandb.read_text() == calls


def test_a_logger_that_cannot_be_opened_is_one_line(project, wandb, capsys):
    wandb.with_name("wandb.py").write_text("def init(**options):\n    raise OSError('no login')\n")
    assert train_logged(project, "wandb")[0] == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "LOG.WANDB" in lines[0] and "no login" in lines[0]

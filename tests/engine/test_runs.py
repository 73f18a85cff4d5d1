"""What a run leaves, and what is loaded of it."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import stores
import torch
from standins import ROOT, TEACHER, learn, quiet

from distillbench import data
from distillbench.engine.processor import processor
from distillbench.engine.record import git_state
from distillbench.engine.run import train
from distillbench.engine.weights import load_run, load_teacher, load_tensors, save_tensors, weights_digest
from distillbench.errors import UserError
from distillbench.files import read_json, to_json, write_atomically


def test_a_missing_teacher_is_one_clear_line(specify, images, tmp_path):
    with pytest.raises(UserError, match="no such file") as error:
        learn(specify(teacher=TEACHER, **{"DISTILLER.TYPE": "KD"}), images, tmp_path)
    assert "\n" not in str(error.value)


JOB = """\
import sys, torch
from distillbench.commands import main
before = set(sys.modules)
assert main(["complete", sys.argv[1]]) == 0
heavy = {"torch._dynamo", "torch._inductor", "torchvision", "scipy", "sklearn", "pandas", "matplotlib"}
print(sorted(heavy & sys.modules.keys() - before))
"""


def test_a_job_imports_no_compiler_and_no_statistics(tmp_path):
    """Each would take as long as a short training, in every job."""
    stores.new_project(tmp_path, stores.SUITE.replace("pairs:", "base: {SOLVER: {EPOCHS: 1}}\npairs:"))
    data.prepare("digits", data.data_path("digits", tmp_path))
    run = stores.runs(tmp_path)["NONE/s0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", JOB, run]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_a_last_batch_of_one_image_without_variance_is_one_line(specify, images, tmp_path):
    """MobileNetV2 ends in maps of one pixel here; 300 images are 13 batches of 23 and one of 1."""
    keys = {"DISTILLER.STUDENT": "MobileNetV2", "SOLVER.BATCH_SIZE": 23, "SOLVER.EPOCHS": 1}
    with pytest.raises(UserError, match=r"^SOLVER.BATCH_SIZE: the last batch of an epoch has one image, of which"):
        learn(specify(**keys), images, tmp_path)


def test_a_pickle_is_not_executed(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"model": Harmful()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="not a readable weights file"):
        load_tensors(tmp_path / "model.pt")
    assert not (tmp_path / "executed").exists()


LOWERED = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}


def test_a_record_names_the_processor_and_the_instructions_in_effect(tmp_path):
    """The environment lowers both, and what the process prints after asking is left as it was."""
    found = []
    for lowered in ({}, LOWERED):
        environment = {name: value for name, value in os.environ.items() if name not in LOWERED} | lowered
        command = [sys.executable, ROOT / "tools/one_step.py"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        named, weights = done.stdout.splitlines()
        assert re.fullmatch("[0-9a-f]{64}", weights)  # whether they differ is the machine's affair
        found.append(ast.literal_eval(named))
    whole, least = found
    assert whole["model"] == least["model"] and whole["model"]
    assert least["torch"] == "DEFAULT" and whole["torch"]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "sse4_1" in cpuinfo.read_text():
        assert "SSE4.1" in least["onednn"] and whole["onednn"]
        assert (whole == least) == (whole["torch"] == "DEFAULT" and "SSE4.1" in whole["onednn"])


@pytest.mark.parametrize("broken", [(torch.cpu, "get_capabilities"), (torch.backends.mkldnn, "verbose"), (os, "dup")])
def test_a_processor_that_does_not_say_is_recorded_all_the_same(monkeypatch, broken):
    def fails(*_):
        raise {"get_capabilities": AttributeError, "verbose": RuntimeError, "dup": OSError}[broken[1]]("not here")

    processor.cache_clear()
    monkeypatch.setattr(*broken, fails)
    found = processor()
    processor.cache_clear()
    assert found.keys() == {"model", "torch", "onednn"} and found["model"]
    assert (found["onednn"] is None) or broken[1] == "get_capabilities"


def test_a_finished_run_leaves_its_files_and_nothing_in_flight(specify, images, tmp_path):
    out = learn(specify(), images, tmp_path)
    assert {p.name for p in out.iterdir()} == {
        "spec.json",
        "record.json",
        "history.csv",
        "model.best.pt",
        "model.last.pt",
    }
    assert not (tmp_path / "work").exists()
    lines = (out / "history.csv").read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith("epoch,lr,train_loss,train_loss_ce,train_top1")


def test_the_digest_of_weights_covers_every_name_type_shape_and_number():
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1, dtype=torch.int64)}
    others = [
        {**weights, "a": weights["a"] + torch.tensor([[0, 0, 0], [0, 0, 1e-6]])},
        {**weights, "a": weights["a"].view(3, 2)},
        {**weights, "b": torch.tensor(2)},
        {**weights, "b": torch.tensor(1, dtype=torch.int32)},
        {"a": weights["a"], "c": weights["b"]},
        {"a": weights["a"]},
    ]
    assert len({weights_digest(w) for w in (weights, *others)}) == 1 + len(others)
    same = {"a": weights["a"].t().contiguous().t(), "b": weights["b"].clone()}  # another layout in memory
    assert weights_digest(same) == weights_digest(weights)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, specify, images):
    """(folder of runs, specification) of one finished run."""
    runs, specification = tmp_path_factory.mktemp("runs"), specify(**{"SOLVER.EPOCHS": 1})
    train(specification, images, runs / specification.id, runs / "work", runs, device="cpu", report=quiet)
    return runs, specification


def test_weights_other_than_the_record_names_are_not_loaded(finished_run, tmp_path):
    runs, specification = finished_run
    run = shutil.copytree(runs / specification.id, tmp_path / "run")
    for checkpoint in ("last", "best"):
        path = run / f"model.{checkpoint}.pt"
        weights = load_tensors(path)["model"]
        assert load_run(run, checkpoint)[2] == weights_digest(weights)
        weights["fc.bias"][3] += 1e-6
        save_tensors(path, {"model": weights})
        with pytest.raises(UserError, match=r"not the weights that record\.json names"):
            load_run(run, checkpoint)


def test_weights_of_another_network_are_not_loaded_whatever_the_record_names(finished_run, tmp_path):
    runs, specification = finished_run
    run = shutil.copytree(runs / specification.id, tmp_path / "run")
    weights = load_tensors(run / "model.last.pt")["model"]
    weights["fc.offset"] = weights.pop("fc.bias")
    save_tensors(run / "model.last.pt", {"model": weights})
    record = read_json(run / "record.json")
    record["weights"]["last"] = weights_digest(weights)
    (run / "record.json").write_text(to_json(record))
    with pytest.raises(UserError, match=r"not the weights of resnet8 for digits .*fc\.bias"):
        load_run(run, "last")


def test_a_teacher_is_the_run_that_the_specification_names(finished_run, specify, tmp_path):
    runs, specification = finished_run
    other = {"kind": "run", "id": specification.id[:-1] + ("0" if specification.id[-1] != "0" else "1")}
    student = specify(teacher={**other, "checkpoint": "last"}, **{"DISTILLER.TYPE": "KD"})
    shutil.copytree(runs / specification.id, tmp_path / other["id"])
    with pytest.raises(UserError, match=f"holds another run, {specification.id}"):
        load_teacher(student, tmp_path)
    student = specify(teacher={**other, "id": specification.id, "checkpoint": "last"}, **{"DISTILLER.TYPE": "KD"})
    network, digest = load_teacher(student, runs)
    assert digest == weights_digest(network.state_dict())
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_the_commit_of_a_record_is_that_of_the_code_with_the_files_that_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert git_state() == (None, None)

    def git(*arguments):
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout

    for name in ("src/a.py", "params/b.yaml", "README.md"):
        write_atomically(tmp_path / name, "old")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "start")
    commit = git("rev-parse", "HEAD").strip()
    assert git_state() == (commit, [])
    for name in ("src/a.py", "README.md", "src/new/c.py"):
        write_atomically(tmp_path / name, "new")
    assert git_state() == (commit, ["src/a.py", "src/new/c.py"])

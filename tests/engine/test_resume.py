"""A run resumed is the run uninterrupted, wherever it was stopped."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest
from standins import learn, learner_of

from distillbench.engine import run as engine_run
from distillbench.engine.flight import Flight, Progress, finish
from distillbench.errors import UserError
from distillbench.files import read_json, to_json, write_atomically
from distillbench.store.layout import FINISHED, RUN_FILES
from distillbench.store.place import bring

KILLED = """
import json, os, signal, sys
import distillbench.files as files, distillbench.engine.weights as weights
from distillbench.commands import main
kill_at, where = int(sys.argv[1]), sys.argv[2]
saves = 0
replace = os.replace
def counted(source, target):
    global saves
    if str(target).endswith("state.pt"):
        saves += 1
        if saves == kill_at and where == "during":  # the new state is aside, the old one in place
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if str(target).endswith("state.pt") and saves == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = counted
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("save", "where", "keys"),
    [
        (2, "within", {}),
        (4, "boundary", {}),
        (5, "during", {}),
        (2, "within", {"DISTILLER.STUDENT": "torchvision:mobilenet_v2"}),
        (2, "within", {"SOLVER.MIXUP": 0.4, "SOLVER.LABEL_SMOOTHING": 0.1}),
    ],
    ids=["within an epoch", "at an epoch's end", "during a save", "with dropout", "with mixup"],
)
def test_a_killed_run_resumes_to_bit_identical_weights_and_history(specify, tmp_path, save, where, keys):
    """Three batches and the end of the epoch save a state each: the second is within, the fourth at the end."""
    specification = specify(**keys)
    (tmp_path / "spec.json").write_text(to_json(specification.as_file()))
    command = ["train", "--spec", "spec.json", "--device", "cpu", "--save-seconds", "0", "--out"]
    prepare = [sys.executable, "-m", "distillbench", "data", "digits"]
    subprocess.run(prepare, cwd=tmp_path, check=True, capture_output=True)
    killed = [sys.executable, "-c", KILLED, str(save), where, *command, "killed"]
    assert subprocess.run(killed, cwd=tmp_path, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "record.json").exists()
    for out in ("killed", "whole"):
        subprocess.run(
            [sys.executable, "-m", "distillbench", *command, out],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
    for name in ("history.csv", "model.last.pt", "model.best.pt", "spec.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (tmp_path / "killed.work").exists()


def test_the_rate_is_that_of_the_whole_training_whenever_it_was_stopped(specify, images, tmp_path, monkeypatch):
    """Also where the attempt that finishes the run had nothing left to train."""
    write = engine_run.write_run

    def killed(folder, *arguments):
        write_atomically(folder / "history.csv", "a part")
        raise KeyboardInterrupt

    monkeypatch.setattr(engine_run, "write_run", killed)
    with pytest.raises(KeyboardInterrupt):
        learn(specify(), images, tmp_path, save_seconds=0)
    assert not (tmp_path / "work" / FINISHED).exists(), "what is written is not finished"
    monkeypatch.setattr(engine_run, "write_run", write)
    out = learn(specify(), images, tmp_path, save_seconds=0)
    assert {path.name for path in out.iterdir()} == set(RUN_FILES)
    record = read_json(out / "record.json")
    assert record["attempts"] == 2
    assert record["images_per_second"] == pytest.approx(2 * 300 / record["seconds"], rel=0.01)


def test_a_state_is_gone_on_with_by_its_own_run_and_from_the_same_inputs_only(specify, tmp_path):
    inputs = {"dataset": "1" * 64, "teacher": "2" * 64}
    built = learner_of(specify(), 300)
    built.train()
    flight = Flight(tmp_path, specify(), inputs, save_seconds=0)
    flight.save_sometimes(built, Progress(epoch=2, position=30, rows=[{"epoch": 1, "test_top1": 50.0}]), 1.0)
    resumed = Flight(tmp_path, specify(), inputs, 0).resume(learner_of(specify(), 300), report=pytest.fail)
    assert (resumed.epoch, resumed.position, len(resumed.rows), resumed.seconds) == (2, 30, 1, 1.0)
    said = []
    anew = Flight(tmp_path, specify(), {**inputs, "teacher": "3" * 64}, 0).resume(
        learner_of(specify(), 300), said.append
    )
    assert (anew.epoch, anew.position, anew.rows) == (1, 0, []) and "made with another teacher" in said[0]
    with pytest.raises(UserError, match="the state of another run"):
        Flight(tmp_path, specify(seed=1), inputs, 0).resume(learner_of(specify(seed=1), 300))


@pytest.mark.parametrize("stopped", range(1, 6))
def test_a_run_that_is_brought_to_its_place_has_its_record_last(tmp_path, monkeypatch, stopped):
    """Killed after any number of files, the old record is there until all files are new; the next call goes on."""
    work, out = tmp_path / "work", tmp_path / "out"
    for name in RUN_FILES:
        write_atomically(out / name, "old")
    moved = []

    def move(path, target):
        if len(moved) == stopped:
            raise KeyboardInterrupt
        moved.append(target.name)
        os.replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) if stopped < 5 else nullcontext():
        patch.setattr("distillbench.store.place.move", move)
        finish(work, out, lambda folder: [write_atomically(folder / name, "new") for name in RUN_FILES])
    assert (out / "record.json").read_text() == ("new" if stopped == 5 else "old")
    assert bring(work, out) == (stopped < 5)
    assert {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys(RUN_FILES, "new")
    assert not list(work.iterdir())

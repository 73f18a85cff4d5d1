"""One process at a time works on a run; the others wait, and nobody holds the lock of a file that is gone."""

import shutil
import signal
import subprocess
import sys
import threading

import pytest
from stores import finish_all, new_project, runs

from distillbench.commands import main
from distillbench.engine.run import train
from distillbench.errors import RunFailed, UserError
from distillbench.files import read_json
from distillbench.store import Store
from distillbench.store.claim import claim, claimed
from distillbench.store.gc import find_unused

MANY = """
import os, random, sys
from pathlib import Path
from distillbench.store.claim import claim
work, count = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(60):
    with claim(work, report=str):
        mine = work / "inside"
        mine.touch(exist_ok=False)  # FileExistsError: somebody else is inside
        count.write_text(str(int(count.read_text()) + 1))
        mine.unlink()
"""
HOLD = """
import sys
from distillbench.store.claim import claim
with claim(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the run of the work directory `work` until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "work")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_of_many_processes_one_is_inside_at_any_moment(tmp_path):
    """Each leaves nothing behind, so that the next one's lock is a new file while others wait for the old one."""
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", MANY, str(tmp_path / "work"), str(tmp_path / "count")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(5)]
    errors = [process.communicate()[1] for process in processes]
    assert errors == [""] * 5 and (tmp_path / "count").read_text() == "300"
    assert not (tmp_path / "work").exists()


def test_a_second_training_waits_and_succeeds(specify, images, tmp_path, holder):
    said = []

    def release(line):
        said.append(line)
        holder.stdin.close()

    train(specify(), images, tmp_path / "out", tmp_path / "work", tmp_path, device="cpu", report=release)
    assert f"process {holder.pid} on " in said[0] and "waiting for it" in said[0]
    assert (tmp_path / "out/record.json").exists() and not (tmp_path / "work").exists()


def test_a_training_that_waited_for_the_one_that_finished_the_run_leaves_it_alone(specify, images, tmp_path, holder):
    def finish(_line):
        for name in ("spec.json", "record.json", "history.csv", "model.best.pt", "model.last.pt"):
            (tmp_path / "out").mkdir(exist_ok=True)
            (tmp_path / "out" / name).write_text("of the other process")
        holder.stdin.close()

    train(specify(), images, tmp_path / "out", tmp_path / "work", tmp_path, device="cpu", report=finish)
    assert {path.read_text() for path in (tmp_path / "out").iterdir()} == {"of the other process"}
    assert not (tmp_path / "work").exists()


def test_a_process_that_is_killed_gives_its_run_back(tmp_path, holder):
    assert claimed(tmp_path / "work")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not claimed(tmp_path / "work")
    with claim(tmp_path / "work", report=pytest.fail):
        assert claimed(tmp_path / "work")


def test_who_does_not_wait_is_told_who_has_the_run(tmp_path, holder):
    with pytest.raises(UserError, match=f"process {holder.pid} on .* works on this run"):
        claim(tmp_path / "work", wait=False).__enter__()


def test_a_look_takes_nothing_from_who_trains(tmp_path):
    """`status` asks while others take and leave the run: nobody is told to wait for it."""
    stop, seen = threading.Event(), []
    looker = threading.Thread(target=lambda: seen.extend(claimed(tmp_path / "work") for _ in iter(stop.is_set, True)))
    looker.start()
    try:
        for _ in range(300):
            with claim(tmp_path / "work", report=pytest.fail):
                pass
    finally:
        stop.set()
        looker.join()
    assert seen


@pytest.mark.parametrize(
    "error", [RunFailed("loss is nan\nand more"), ValueError(), UserError("no such file")], ids=repr
)
def test_whatever_fails_leaves_its_reason_until_the_next_attempt(tmp_path, error):
    with pytest.raises(type(error)), claim(tmp_path / "work"):
        raise error
    reason = read_json(tmp_path / "work/failure.json")["reason"]
    assert reason == (str(error).partition("\n")[0] or "ValueError")
    with claim(tmp_path / "work"):
        assert not (tmp_path / "work/failure.json").exists()
    assert not (tmp_path / "work").exists()


def test_what_is_claimed_is_not_deleted_and_not_replaced(tmp_path, monkeypatch, capsys):
    """`gc` and `import` ask for the same claim, also where the run was taken after they had looked."""
    new_project(tmp_path)
    finish_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = runs(tmp_path)["KD/s1"]
    assert main(["export", "small", "--out", "small.tar"]) == 0
    (tmp_path / "params/small.yaml").unlink()
    item = next(item for item in find_unused(Store()).items if item.run == run)
    command = [sys.executable, "-c", HOLD, str(Store().work(run))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert not item.delete(Store()) and run in Store().ids()
        (Store().run(run) / "history.csv").unlink()
        capsys.readouterr()
        assert main(["import", "small.tar"]) == 1
        assert f"refused      {run}: is being worked on here" in capsys.readouterr().out
        process.stdin.close()
    assert main(["import", "small.tar"]) == 0
    assert item.delete(Store()) and run not in Store().ids()


def test_a_claim_whose_directory_was_deleted_does_not_end_the_next_ones(tmp_path, holder):
    """Somebody removed the work directory of a claimed run, by hand; the next process has a lock of its own."""
    shutil.rmtree(tmp_path / "work")
    with claim(tmp_path / "work", report=pytest.fail):
        holder.stdin.close()
        holder.wait()
        assert claimed(tmp_path / "work")


@pytest.mark.parametrize("place", ["work", "runs/work"])
def test_a_link_to_nowhere_is_an_error_and_no_endless_loop(tmp_path, place):
    (tmp_path / place.partition("/")[0]).symlink_to(tmp_path / "nowhere/at/all")
    with pytest.raises(OSError):
        claim(tmp_path / place).__enter__()


def test_every_training_of_a_runs_own_place_has_the_runs_claim(tmp_path, monkeypatch):
    """Whether or not --work says so: nobody else knows another."""
    new_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    run, seen = runs(tmp_path)["NONE/s0"], []
    monkeypatch.setattr("distillbench.engine.run.train", lambda *_, work, **options: seen.append(str(work)))
    monkeypatch.setattr("distillbench.jobs._images", lambda *_, **options: None)
    for out in (f"results/runs/{run}", f"./results/runs/{run}/", "elsewhere"):
        assert main(["train", "--spec", f"results/specs/{run}.json", "--out", out]) == 0
    assert seen == [f"results/work/{run}", f"results/work/{run}", "elsewhere.work"]

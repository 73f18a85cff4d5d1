"""Batch statistics over micro-batches: one process and several give the same numbers, and end together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from standins import DIGITS, FIXTURES, TEACHER, learner_of, quiet, specification_of

from distillbench.checks.method import can_be_replayed, names_its_numbers, resumes, waits_for_no_device
from distillbench.config import own_files
from distillbench.data import Images, digits
from distillbench.engine.micro_batches import Accumulation, Part, cut, notes, require_fit, shared
from distillbench.engine.run import train
from distillbench.errors import UserError
from distillbench.files import read_json, to_json
from distillbench.group import Alone, Processes, joined
from distillbench.jobs import complete
from distillbench.models import build_network
from distillbench.store import Store

CUT = {"SOLVER.BATCH_SIZE": 64, "SOLVER.BATCH_STATISTICS": 16, "SOLVER.PRECISION": "fp64", "SOLVER.EPOCHS": 2}
ROWS = {
    "NONE": {},
    "KD+GKD": {"DISTILLER.TYPE": "KD", "GKD": {"K": 6.0}},
    "DKD+DOT": {"DISTILLER.TYPE": "DKD", "SOLVER.TRAINER": "dot"},
    **{method: {"DISTILLER.TYPE": method} for method in ("SP", "PKT", "RKD", "CRD", "VID")},
    "AdamW": {"SOLVER.TYPE": "AdamW", "SOLVER.LR": 0.001},
    "mixup": {"SOLVER.MIXUP": 0.4, "SOLVER.LABEL_SMOOTHING": 0.1},
    "dropout": {"DISTILLER.STUDENT": "dropping"},
}
FEW = 64 + 64 + 17  # the last batch is one micro-batch: what else trains the run has nothing to do


def few(images):
    """The first digits, under the digest of all, so that no run refuses them."""
    return Images(*(array[:FEW] for array in images.arrays.values()), stated=DIGITS["sha256"])


def torchrun(processes, *command, **options):
    """A command in so many processes: (exit code, stdout, stderr)."""
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *map(str, command)]
    path = os.pathsep.join(map(str, (FIXTURES.parent, *filter(None, [os.environ.get("PYTHONPATH")]))))
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, env=env, **options)
    return done.returncode, done.stdout, done.stderr


# One process


def test_batches_are_cut_in_order_and_no_image_is_left_alone():
    assert cut(64, "global") == shared(64, "global") == [Part(0, 64)]
    assert cut(40, 16) == [Part(0, 16), Part(16, 16), Part(32, 8)]
    assert cut(33, 16) == [Part(0, 16), Part(16, 17)]
    assert cut(1, 16) == [Part(0, 1)]


def test_processes_share_the_micro_batches_and_one_without_adds_nothing():
    assert [shared(64, 16, rank, 2) for rank in (0, 1)] == [cut(64, 16)[::2], cut(64, 16)[1::2]]
    assert [shared(17, 16, rank, 2) for rank in (0, 1)] == [[Part(0, 17)], [Part(0, 17, False)]]


@pytest.mark.parametrize(
    ("statistics", "processes", "line"),
    [
        ("global", 2, "SOLVER.BATCH_STATISTICS: global: statistics over whole batches are for one process, here are 2"),
        (16, 3, "4 micro-batches of 16 of the 64 images are not shared evenly by 3 processes; start 1, 2, 4"),
        (16, 8, "not shared evenly by 8 processes; start 1, 2, 4"),
    ],
)
def test_a_number_of_processes_that_does_not_fit_is_refused(statistics, processes, line):
    with pytest.raises(UserError, match=line):
        require_fit({"size": 64, "statistics": statistics}, Processes(0, processes))
    require_fit({"size": 64, "statistics": statistics}, Alone())
    require_fit({"size": 64, "statistics": 16}, Processes(0, 4))


def test_a_remainder_of_one_image_is_said():
    assert notes({"size": 64, "statistics": 16}, 100) == notes({"size": 64, "statistics": "global"}, 65) == []
    (line,) = notes({"size": 64, "statistics": 16}, 64 + 33)
    assert line == "the last batch of an epoch: its last micro-batch has 17 images, as one alone has no statistics"
    assert [line[:11] for line in notes({"size": 65, "statistics": 16}, 65)] == ["every batch"]


def test_a_step_is_that_of_the_mean_loss_and_running_statistics_move_once(specify):
    """An independent loop over the micro-batches, each from the same network, with torch's optimizer."""
    specification = specify(**CUT)
    learner = learner_of(specification, 100)
    network = build_network("resnet8", "digits").double().to(memory_format=torch.channels_last)
    network.load_state_dict(learner.student.state_dict())
    rates = {"lr": 0.05, "momentum": 0.9, "weight_decay": specification.schedule["WEIGHT_DECAY"]}
    optimizer = torch.optim.SGD(network.parameters(), **rates)
    for size in (64, 36):
        learner.begin(1, 0.05, 0 if size == 64 else 64)
        batch = learner.feed.batch(size)
        before = {name: buffer.clone() for name, buffer in network.named_buffers()}
        moved = []
        optimizer.zero_grad()
        for images, target in zip(batch.views[0].split(16), batch.target.split(16), strict=True):
            network.load_state_dict(before, strict=False)
            (F.cross_entropy(network.train()(images)[0], target, reduction="sum") / size).backward()
            moved.append({name: buffer.clone() for name, buffer in network.named_buffers()})
        optimizer.step()
        for name, buffer in network.named_buffers():
            counter = not buffer.is_floating_point()
            buffer.copy_(before[name] + 1 if counter else torch.stack([state[name] for state in moved]).mean(dim=0))
        learner.step(size)
        for name, theirs in network.state_dict().items():
            torch.testing.assert_close(learner.student.state_dict()[name], theirs, rtol=1e-10, atol=1e-12, msg=name)
    assert learner.feed.position == 100 and learner.sums.totals()["images"] == 100


@pytest.mark.parametrize("kind", [torch.nn.BatchNorm2d, torch.nn.InstanceNorm2d])
def test_running_statistics_of_every_normalisation_move_once(kind):
    norm = kind(3, track_running_stats=True)
    images, step, moved = torch.rand(8, 3, 4, 4), Accumulation([norm], 8, 4, Alone()), []
    for part in step.parts:
        own = kind(3, track_running_stats=True)
        for network in (norm, own):
            network(images[part.offset : part.offset + part.size])
        moved.append(own.running_mean)
        step.add(part, ([],), {"images": torch.tensor(float(part.size))})
    step.total()
    torch.testing.assert_close(norm.running_mean, torch.stack(moved).mean(dim=0))
    assert norm.num_batches_tracked == own.num_batches_tracked


def test_what_couples_images_couples_those_of_a_micro_batch(specify):
    """Two halves of a batch, as micro-batches, are two batches."""
    keys, losses = {"DISTILLER.TYPE": "SP", "SOLVER.PRECISION": "fp64"}, []
    teacher = build_network("resnet8", "digits").eval()
    for size, statistics in ((32, "global"), (32, 16), (16, "global")):
        cut = {"SOLVER.BATCH_SIZE": size, "SOLVER.BATCH_STATISTICS": statistics}
        learner = learner_of(specify(teacher=TEACHER, **keys, **cut), 32, teacher)
        learner.begin(1, lr=0.0)
        for _ in range(32 // size):
            learner.step(size)
        losses.append(learner.sums.totals()["loss_kd"])
    torch.testing.assert_close(losses[1], losses[2], rtol=1e-12, atol=0)
    assert abs(losses[0] - losses[1]) > 1e-3 * losses[0]


@pytest.mark.parametrize("rule", [can_be_replayed, resumes, waits_for_no_device, names_its_numbers])
@pytest.mark.parametrize("row", ["KD+GKD", "DKD+DOT", "CRD"])
def test_steps_of_micro_batches_keep_the_contract(row, rule):
    rule({**ROWS[row], "SOLVER.BATCH_STATISTICS": 6})


# Several processes


def train_all(folder, images, group=None):
    """Train a teacher and every row, into a folder; what the processes of a group do, too."""
    own_files.use(networks=[str(FIXTURES / "dropping_network.py")])
    folder, options = Path(folder), {"device": "cpu", "report": quiet, "group": group}
    made_by = specification_of(**CUT | {"SOLVER.EPOCHS": 1})
    teacher = {"kind": "run", "id": made_by.id, "checkpoint": "last"}
    runs = {"teacher": made_by}
    runs |= {
        name: specification_of(teacher=teacher if "DISTILLER.TYPE" in row else None, **CUT | row)
        for name, row in ROWS.items()
    }
    for name, specification in runs.items():
        out = folder / (made_by.id if name == "teacher" else name)
        if group is None or group.rank == 0 or group.tell():
            train(specification, images, out, folder / "work" / name, folder, **options)


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    train_all(folder, few(images))
    own_files.use()
    return folder


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_give_what_one_gives(alone, tmp_path, processes):
    code, _, errors = torchrun(processes, __file__, tmp_path)
    assert code == 0, errors
    for name in ROWS:
        assert read_json(tmp_path / name / "record.json")["engine"]["processes"] == processes
        for file in ("model.last.pt", "model.best.pt"):
            ours, theirs = (torch.load(folder / name / file)["model"] for folder in (tmp_path, alone))
            for key, tensor in theirs.items():
                torch.testing.assert_close(ours[key], tensor, rtol=1e-10, atol=1e-10, msg=f"{name} {key}")
        ours, theirs = (rows(folder / name / "history.csv") for folder in (tmp_path, alone))
        assert ours[0] == theirs[0]
        for line, other in zip(ours[1:], theirs[1:], strict=True):
            assert line == pytest.approx(other, rel=1e-9, abs=1e-9), name


DIFFERENT = "distillbench: the 2 processes have come to different weights: a buffer that NONE or the network writes in"
DIFFERENT += " a step has to move in `Method.settle`"


def rows(path):
    head, *lines = path.read_text().splitlines()
    return [head, *([float(value or "nan") for value in line.split(",")] for line in lines)]


KILLING = """
import os, signal, sys
import distillbench.engine.learner as learner
from distillbench.errors import UserError
from distillbench.commands import main
step, steps = learner.Learner.step, 0
def counted(self, *arguments, **options):
    global steps
    steps += 1
    if steps == 4 and os.environ["RANK"] == "1":
        {}
    step(self, *arguments, **options)
learner.Learner.step = counted
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", ""),
        ("raise UserError('x.jpeg: no image')", "distillbench: x.jpeg: no image"),
        ("next(self.student.parameters()).data.add_(1)", DIFFERENT),
    ],
    ids=["killed", "failing", "differing"],
)
def test_where_one_process_stops_all_do_and_the_run_goes_on_from_its_state(tmp_path, what, line):
    specification = specification_of(**CUT)
    (tmp_path / "spec.json").write_text(to_json(specification.as_file()))
    prepare = [sys.executable, "-m", "distillbench", "data", "digits"]
    subprocess.run(prepare, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "killing.py").write_text(KILLING.format(what))
    command = ["train", "--spec", "spec.json", "--device", "cpu", "--save-seconds", "0", "--out"]
    code, _, errors = torchrun(2, "killing.py", *command, "stopped", cwd=tmp_path)
    assert code == 1 and not (tmp_path / "stopped").exists() and "[rank" not in errors, errors
    told = [text for text in errors.splitlines() if text.startswith("distillbench:")]
    assert told.count(line) == bool(line) and len(told) <= 2, errors
    assert (tmp_path / "stopped.work" / "state.pt").exists()
    if line:
        return
    for out in ("stopped", "whole"):
        code, said, errors = torchrun(2, "-m", "distillbench", *command, out, cwd=tmp_path)
        assert code == 0 and said.count("epoch 2/2") == 1, errors
    for file in ("history.csv", "model.last.pt", "model.best.pt", "spec.json"):
        assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    assert not (tmp_path / "stopped.work").exists()
    code, said, _ = torchrun(2, "-m", "distillbench", *command, "whole", cwd=tmp_path)
    assert code == 0 and "epoch" not in said


ENDING = """
import os, signal, sys
import distillbench.engine.run as run
from distillbench.commands import main
run.finish = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_whose_first_process_was_killed_behind_the_last_epoch_is_finished_by_the_same_command(tmp_path):
    (tmp_path / "spec.json").write_text(to_json(specification_of(**CUT | {"SOLVER.EPOCHS": 1}).as_file()))
    prepare = [sys.executable, "-m", "distillbench", "data", "digits"]
    subprocess.run(prepare, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "ending.py").write_text(ENDING)
    command = ["train", "--spec", "spec.json", "--device", "cpu", "--save-seconds", "0", "--out", "out"]
    assert torchrun(2, "ending.py", *command, cwd=tmp_path)[0] == 1 and (tmp_path / "out.work" / "state.pt").exists()
    code, said, errors = torchrun(2, "-m", "distillbench", *command, cwd=tmp_path)
    assert code == 0 and "epoch" not in said, errors
    assert (tmp_path / "out" / "record.json").exists() and not (tmp_path / "out.work").exists()


def test_complete_is_refused_to_several_processes_which_would_wait_for_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="complete: is for one process; start `train` with torchrun"):
        complete(Store(tmp_path), "digits/resnet8/none/s0-000000000000")


def test_what_does_not_fit_is_said_once(tmp_path):
    (tmp_path / "spec.json").write_text(to_json(specification_of().as_file()))
    prepare = [sys.executable, "-m", "distillbench", "data", "digits"]
    subprocess.run(prepare, cwd=tmp_path, check=True, capture_output=True)
    code, _, errors = torchrun(2, "-m", "distillbench", "train", "--spec", "spec.json", "--out", "a", cwd=tmp_path)
    told = [line for line in errors.splitlines() if line.startswith("distillbench:")]
    assert code == 1 and len(told) == 1 and "SOLVER.BATCH_STATISTICS: global" in told[0], errors


if __name__ == "__main__":  # one of several processes
    torch.set_num_threads(1)
    train_all(sys.argv[1], few(Images(*digits.arrays())), joined())

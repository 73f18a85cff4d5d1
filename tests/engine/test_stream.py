"""Streamed images: batches are those of the plan whatever decodes them, and a run loses nothing to a damaged file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from published import publish_imagenet, write_imagenet
from standins import learn, specification_of
from test_resume import KILLED

from distillbench import data
from distillbench.commands import main
from distillbench.config import components
from distillbench.data import trained_on
from distillbench.data.augment import augmentation_of, centre_view
from distillbench.data.jpeg import decode
from distillbench.engine import stream
from distillbench.engine.learner import Learner
from distillbench.engine.replay import Replayed
from distillbench.engine.run import splits
from distillbench.engine.stream import DecodingFailed, feed_of, put
from distillbench.engine.streams import generator
from distillbench.errors import UserError
from distillbench.files import read_json, to_json
from distillbench.group import Alone

SIZE = 32
HOLDOUT = {"holdout": 0.3, "salt": 0}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A small ImageNet in a project of its own: 30 training images of three classes, views of 32x32."""
    monkeypatch.chdir(tmp_path)
    components.datasets.cache_clear()
    publish_imagenet("data/imagenet", monkeypatch, per_class=10)
    monkeypatch.setitem(components.datasets()["imagenet"], "image_size", SIZE)
    monkeypatch.setattr(stream, "SLICE", 3)  # so that a batch is several slices, the last one smaller
    assert main(["data", "imagenet"]) == 0
    yield data.load("imagenet", data.data_path("imagenet"))
    components.datasets.cache_clear()


def specify(**keys):
    base = {
        "DATASET.TYPE": "imagenet",
        "DISTILLER.STUDENT": "ResNet18",
        "SOLVER.BATCH_SIZE": 8,
        "SOLVER.PRECISION": "fp32",
    }
    return specification_of(**{**base, **keys})


def streamed(files, specification, workers=0, group=None, chosen=None, device="cpu"):
    split = put(files.training, specification, device, workers)
    return feed_of(split if chosen is None else split.part(chosen), specification, group or Alone())


def batches_of(feed, epoch=1, position=0):
    feed.begin(epoch, position)
    found = []
    for start in range(position, len(feed), 8):
        size = min(8, len(feed) - start)
        feed.fetch(size)
        batch = feed.batch(size)
        feed.advance(size)
        found.append((*(view.clone() for view in batch.views), batch.target, batch.index))
    return found


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))


def two_views():
    specification = specify()
    return type(specification)({**specification.data, "views": {**specification["views"], "count": 2}})


def test_batches_are_the_plan_of_the_seed_cut_by_the_augmentation(files):
    """Decoded one by one here: order, crops and flips are functions of seed, epoch and image."""
    specification = two_views()
    feed, declared = streamed(files, specification), components.datasets()["imagenet"]
    augmentation = augmentation_of(declared["augmentation"])
    mean, std = (torch.tensor(declared[key]) for key in ("mean", "std"))
    order = torch.randperm(30, generator=generator(0, "order", 2)).tolist()
    found = batches_of(feed, epoch=2)
    assert [batch[-1].tolist() for batch in found] == [order[start : start + 8] for start in range(0, 30, 8)]
    for *views, target, index in found:
        assert target.tolist() == [files.train_labels[position] for position in index]
        for number, view in enumerate(views):
            for image, position in zip(view, index.tolist(), strict=True):
                pixels = decode(files.training.read(position), "")
                cut = augmentation.view(pixels, SIZE, generator(0, "view", 2, position, number))
                assert torch.equal(image, ((cut.to(torch.float32) / 255 - mean) / std).permute(2, 0, 1))
    assert not torch.equal(found[0][0], found[0][1]), "the views of an image differ"
    assert not torch.equal(found[0][0], batches_of(feed, epoch=1)[0][0])


@pytest.mark.parametrize("workers", [1, 3])
def test_no_bit_depends_on_the_number_of_workers(files, workers):
    specification = two_views()
    alone, several = streamed(files, specification, 0), streamed(files, specification, workers)
    for epoch in (1, 2):
        assert_same(batches_of(alone, epoch), batches_of(several, epoch))
    evaluated = [put(files.test, specification, "cpu", number) for number in (0, workers)]
    assert_same(*(list(split.batches()) for split in evaluated))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_a_gpu_has_the_batches_of_the_cpu_while_earlier_ones_are_still_computed(files):
    specification = two_views()
    ours, theirs = streamed(files, specification, 2, device="cuda"), streamed(files, specification)
    for epoch in (1, 2):
        ours.begin(epoch)
        theirs.begin(epoch)
        copies = []
        for size in (8, 8, 8, 6):
            torch.cuda._sleep(10_000_000)
            ours.fetch(size)
            theirs.fetch(size)
            copies.append((ours.pixels[:size].clone(), theirs.pixels[:size].clone()))
        assert all(torch.equal(on_gpu.cpu(), on_cpu) for on_gpu, on_cpu in copies)


def noted_reads(files, monkeypatch):
    """The positions of the images that this process reads from now on."""
    positions, read = [], type(files.training).read

    def noted(self, position):
        positions.append(int(position))
        return read(self, position)

    monkeypatch.setattr(type(files.training), "read", noted)
    return positions


def test_a_resume_within_an_epoch_decodes_nothing_of_what_is_behind_it(files, monkeypatch):
    feed = streamed(files, specify())
    whole = batches_of(feed, epoch=3)
    read = noted_reads(files, monkeypatch)
    assert_same(batches_of(feed, 3, 16), whole[2:])
    assert read == [*whole[2][-1].tolist(), *whole[3][-1].tolist()]


class Rank(Alone):
    def __init__(self, rank, size):
        self.rank, self.size = rank, size


def test_processes_decode_their_own_parts_only(files, monkeypatch):
    """Micro-batches of 2: of 8 images the first process has 0, 1, 4, 5 and the second 2, 3, 6, 7."""
    specification = specify(SOLVER__BATCH_STATISTICS=2)
    whole = batches_of(streamed(files, specification))
    read = noted_reads(files, monkeypatch)
    for rank, places in ((0, [0, 1, 4, 5]), (1, [2, 3, 6, 7])):
        feed = streamed(files, specification, group=Rank(rank, 2))
        feed.begin(1)
        read.clear()
        feed.fetch(8)
        assert read == whole[0][-1][places].tolist()
        for offset in places[::2]:
            assert torch.equal(feed.batch(2, offset).views[0], whole[0][0][offset : offset + 2])


def test_held_out_images_are_not_trained_on_and_crops_stay_those_of_the_image(files):
    specification = specification_of(
        protocol=HOLDOUT, **{"DATASET.TYPE": "imagenet", "DISTILLER.STUDENT": "ResNet18", "SOLVER.BATCH_SIZE": 8}
    )
    chosen = trained_on(files.train_labels, HOLDOUT)
    training, held_out = splits(specification, files, torch.device("cpu"), 0)
    assert training.positions.tolist() == np.flatnonzero(chosen).tolist()
    assert held_out.positions.tolist() == np.flatnonzero(~chosen).tolist()
    images, labels = (torch.cat(parts) for parts in zip(*held_out.batches(), strict=True))
    assert labels.tolist() == files.train_labels[~chosen].tolist() and len(images) == 9
    pixels = centre_view(decode(files.training.read(np.flatnonzero(~chosen)[4]), ""), SIZE)
    assert torch.equal(images[4], held_out.normalised(pixels[None])[0])
    whole = {
        int(i): view for views, _, index in batches_of(streamed(files, specification)) for view, i in zip(views, index)
    }
    for views, _, index in batches_of(streamed(files, specification, chosen=chosen)):
        for view, place in zip(views, index.tolist(), strict=True):
            assert torch.equal(view, whole[int(training.positions[place])])


def test_processes_share_the_batches_of_an_evaluation(files, monkeypatch):
    monkeypatch.setitem(stream.EVALUATION_BATCH, "cpu", 2)
    split = put(files.test, specify(), "cpu", 0)
    whole = list(split.batches())
    assert len(whole) == 3
    assert_same(list(split.batches(1, 2)), whole[1::2])
    assert_same(list(split.batches(0, 2)), whole[0::2])


def test_images_are_mixed_where_the_run_mixes_them(files):
    specification = specify()
    mixing = type(specification)({**specification.data, "views": {**specification["views"], "mixup": 0.4}})
    feed, plain = streamed(files, mixing), batches_of(streamed(files, specification))
    feed.begin(1)
    feed.fetch(8)
    batch = feed.batch(8)
    share = feed.plan["share"][0].to(torch.float32)
    assert 0.5 <= share < 1 and torch.equal(batch.views[0], feed.mixup.apply(plain[0][0], share))


def test_steps_may_be_replayed_as_a_graph_does(files):
    """A step reads what was fetched from tensors that do not move."""
    learners = [Learner(specify(), streamed(files, specify())) for _ in range(2)]
    for learner, driver in zip(learners, (learners[0], Replayed(learners[1])), strict=True):
        for epoch in (1, 2):
            learner.begin(epoch, 0.05)
            for size in (8, 8, 8, 6):
                learner.feed.fetch(size)
                driver.step(size)
    ours, theirs = (learner.student.state_dict() for learner in learners)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def run_of(files, tmp_path, name, **options):
    return learn(specify(**{"SOLVER.EPOCHS": 1}), files, tmp_path / name, **options)


def test_a_run_is_the_same_with_workers_and_without_and_says_what_it_was_trained_on(files, tmp_path):
    outs = [run_of(files, tmp_path, f"{workers}", workers=workers) for workers in (0, 2)]
    for name in ("history.csv", "model.last.pt", "model.best.pt"):
        assert outs[0].joinpath(name).read_bytes() == outs[1].joinpath(name).read_bytes(), name
    assert read_json(outs[0] / "record.json")["images"] == files.origin


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["training", "test"])
def test_a_damaged_image_ends_a_run_with_its_name_and_once_mended_it_goes_on(files, tmp_path, workers, where):
    """The state is that of the last step before it, though none was saved by the clock."""
    whole = run_of(files, tmp_path, "whole", workers=0)
    order = torch.randperm(30, generator=generator(0, "order", 1)).tolist()
    listing = getattr(files, where)
    path = listing.path(order[20] if where == "training" else 4)
    content = path.read_bytes()
    path.write_bytes(content[:30] + bytes(len(content) - 30))
    with pytest.raises(UserError, match=f"^{path}: ") as caught:
        run_of(files, tmp_path, "broken", workers=workers, save_seconds=1e9)
    assert "\n" not in str(caught.value) and isinstance(caught.value, DecodingFailed)
    state = torch.load(tmp_path / "broken/work/state.pt", weights_only=True)["progress"]
    assert (state["epoch"], state["position"]) == (1, 16 if where == "training" else 30)
    path.write_bytes(content)
    out = run_of(files, tmp_path, "broken", workers=workers)
    for name in ("history.csv", "model.last.pt", "model.best.pt"):
        assert out.joinpath(name).read_bytes() == whole.joinpath(name).read_bytes(), name
    assert read_json(out / "record.json")["attempts"] == 2


def test_a_worker_that_dies_is_one_line(files, monkeypatch):
    monkeypatch.setattr("distillbench.data.jpeg.decode", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    feed = streamed(files, specify(), workers=1)
    feed.begin(1)
    with pytest.raises(
        DecodingFailed, match=r"^DataLoader worker [(]pid.*; fewer --workers take less memory, the run goes on$"
    ):
        feed.fetch(8)


def test_by_default_workers_have_the_cores_that_are_left(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12))
    assert [stream.workers_of(threads) for threads in (1, 4, 12, 20)] == [11, 8, 0, 0]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert stream.workers_of(1) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(200))
    assert stream.workers_of(1) == stream.MOST_WORKERS


ENDLESS = """
import sys, time
from distillbench import data
from distillbench.config.specification import read_specification
from distillbench.engine import stream
from distillbench.group import Alone
files = data._read("results/data/imagenet.npz")
specification = read_specification("spec.json")
feed = stream.feed_of(stream.put(files.training, specification, "cpu", 2), specification, Alone())
feed.begin(1)
feed.fetch(8)
print("begun", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_run(files, number):
    Path("spec.json").write_text(to_json(specify().as_file()))
    run = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "begun\n"
    workers = [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
    assert len(workers) >= 2
    run.send_signal(number)
    run.wait(timeout=30)
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_run_resumes_to_bit_identical_weights_and_history(tmp_path, monkeypatch):
    """Killed once the first of two batches is saved, and gone on with by another number of workers."""
    monkeypatch.chdir(tmp_path)
    components.datasets.cache_clear()
    write_imagenet(Path("mine"))
    assert main(["data", "declare", "mine", "--name", "mine", "--like", "imagenet"]) == 0
    components.datasets.cache_clear()
    assert main(["data", "mine", "--from", "mine"]) == 0
    specification = specify(**{"DATASET.TYPE": "mine", "DISTILLER.STUDENT": "MobileNetV1", "SOLVER.EPOCHS": 1})
    Path("spec.json").write_text(to_json(specification.as_file()))
    command = ["train", "--spec", "spec.json", "--device", "cpu", "--save-seconds", "0", "--out"]
    killed = [sys.executable, "-c", KILLED, "1", "within", *command, "killed", "--workers", "2"]
    assert subprocess.run(killed, capture_output=True).returncode == -signal.SIGKILL
    state = torch.load("killed.work/state.pt", weights_only=True)["progress"]
    assert (state["epoch"], state["position"]) == (1, 8) and not Path("killed/record.json").exists()
    for out, workers in (("killed", "0"), ("whole", "1")):
        assert main([*command, out, "--workers", workers]) == 0
    for name in ("history.csv", "model.last.pt", "model.best.pt", "spec.json"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes(), name
    components.datasets.cache_clear()

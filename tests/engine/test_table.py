"""The logit table: the teacher's numbers, bit for bit, whoever looks them up and however it was made."""

import re
import resource
import shutil

import pytest
import torch
from standins import feed_of, quiet

from distillbench.data.augment import CropFlip
from distillbench.engine import table as engine_table
from distillbench.engine import teacher as engine_teacher
from distillbench.engine.feed import Feed, generated_feed
from distillbench.engine.flight import Flight, Progress
from distillbench.engine.learner import Learner
from distillbench.engine.networks import LiveTeacher, TableTeacher
from distillbench.engine.replay import Replayed
from distillbench.engine.run import train
from distillbench.engine.streams import initialisation
from distillbench.engine.table import read_table, write_table
from distillbench.engine.teacher import _no_room, teacher_source
from distillbench.engine.weights import load_tensors
from distillbench.errors import UserError
from distillbench.evaluation.tabulate import tabulate
from distillbench.files import read_json
from distillbench.models import build_network
from distillbench.store.layout import STATE
from distillbench.store.tables import Key, aside, read_header, table_path

KD = {"DISTILLER.TYPE": "KD", "SOLVER.BATCH_SIZE": 64}  # the last batch has 44 images
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network():
    """A teacher whose statistics are those of no fresh network."""
    with initialisation(3, "teacher"):
        built = build_network("resnet8", "digits").requires_grad_(False)
        built.train()(torch.randn(64, 3, 16, 16))
    return built.eval().to(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def store(tmp_path_factory, specify, images):
    """(folder results, id) of a finished teacher with its table."""
    results = tmp_path_factory.mktemp("results")
    specification = specify(**{"SOLVER.EPOCHS": 1, "SOLVER.PRECISION": "fp64"})
    runs, run = results / "runs", specification.id
    train(specification, images, runs / run, results / "work", runs, device="cpu", report=quiet)
    tabulate(runs / run, "last", images, table_path(results, Key(run, "last")), "cpu", quiet)
    return results, run


@pytest.fixture
def results(store, tmp_path):
    """A copy of it to break, and the teacher of students."""
    folder, run = store
    copy = shutil.copytree(folder, tmp_path / "results")
    return copy, {"kind": "run", "id": run, "checkpoint": "last"}


def trained(specification, images, results, name, **options):
    out = results.parent / name
    work = options.pop("work", results.parent / f"{name}.work")
    train(specification, images, out, work, results / "runs", device="cpu", report=quiet, **options)
    return out


@pytest.mark.parametrize("flip", [False, True])
def test_a_table_has_the_live_teachers_logits_of_every_view_bit_for_bit(specify, network, tmp_path, flip):
    """In batches of 16 and more, in fp32; 40 images times 18 or 9 views fill no whole number of large batches."""
    specification, views = specify(), {"count": 2, "augmentation": {"crop_padding": 1, "flip": flip}}
    feed = Feed(generated_feed(specification, 40).split, views, seed=0)
    count = 18 if flip else 9
    header = {"shape": [40, count, 10]}
    write_table(tmp_path / "a.logits", network, feed.split, feed.augmentation, header, quiet)
    table = read_table(tmp_path / "a.logits", header)
    feed.number_views()
    seen, live, looked_up = set(), LiveTeacher(network, "fp32", features=False), TableTeacher(table, None)
    for epoch in range(1, 130 if flip else 40):
        feed.begin(epoch)
        for size in (16, 24):
            batch = feed.batch(size)
            feed.advance(size)
            for asked, found in zip(live(batch), looked_up(batch), strict=True):
                assert torch.equal(asked.logits, found.logits) and found.features == {}
            seen.update(torch.cat(batch.view_numbers()).tolist())
    assert seen == set(range(40 * count)), "every row was compared"


def test_a_table_is_not_asked_about_images_that_a_method_made(specify, network):
    """Such as mixed ones: of these the live teacher knows the logits."""
    feed = generated_feed(specify(), 40)
    feed.number_views()
    batch = feed.batch(16)
    live = LiveTeacher(network, "fp32", features=False)
    teacher, (view,) = TableTeacher(torch.zeros(40, 18, 10), live), batch.views
    assert teacher(batch)[0].logits.count_nonzero() == 0
    for changed in (batch._replace(views=(view.flip(0),)), batch._replace(views=(view[:4],))):
        assert torch.equal(teacher(changed)[0].logits, live(changed)[0].logits)
    view.mul_(0.5)
    assert torch.equal(teacher(batch)[0].logits, live(batch)[0].logits)


def test_no_batch_of_a_table_is_small(network, tmp_path, specify, monkeypatch):
    """Of 360 views 104 would be left for the last one."""
    sizes, forward = [], network.forward
    monkeypatch.setattr(network, "forward", lambda images: sizes.append(len(images)) or forward(images))
    split = generated_feed(specify(), 40).split
    write_table(tmp_path / "a.logits", network, split, CropFlip(1, False), {"shape": [40, 9, 10]}, quiet)
    assert sizes == [128, 128, 128]


@pytest.mark.parametrize("keys", [{}, {"GKD": {}, "SOLVER.TRAINER": "dot"}], ids=["KD", "KD+GKD+DOT"])
def test_a_run_with_a_table_is_the_run_with_the_live_teacher(specify, images, results, keys):
    """Weights and history, over epochs with a small last batch."""
    results, teacher = results
    specification = specify(teacher=teacher, **KD, **keys)
    outs = {
        kind: trained(specification, images, results, kind, table=wanted)
        for kind, wanted in (("table", "auto"), ("live", "never"))
    }
    for name in ("history.csv", "model.last.pt", "model.best.pt"):
        assert (outs["table"] / name).read_bytes() == (outs["live"] / name).read_bytes(), name
    engine = {kind: read_json(out / "record.json")["engine"] for kind, out in outs.items()}
    assert {kind: e["teacher_source"] for kind, e in engine.items()} == {"table": "table", "live": "live"}
    assert (engine["table"]["why_live"], engine["live"]["why_live"]) == (None, "--table never")


def test_steps_that_look_up_can_be_replayed_and_keep_what_they_need(specify, network, tmp_path):
    specification = specify(teacher={"kind": "run", "id": "digits/a/b/s0-000000000000", "checkpoint": "last"}, **KD)
    table = torch.randn(32, 18, 10)
    learners = [Learner(specification, generated_feed(specification, 32), network, table) for _ in range(2)]
    for built, step in ((learners[0], learners[0].step), (learners[1], Replayed(learners[1]).step)):
        for epoch in (1, 2):
            built.begin(epoch, 0.05)
            step(16)
            step(16)
    assert all(map(torch.equal, *(built.statics() for built in learners)))
    assert any(tensor is learners[0].feed.plan["number"] for tensor in learners[0].statics())


# Making


def test_a_table_that_was_interrupted_is_the_table_uninterrupted(specify, network, tmp_path):
    split, header, pieces = generated_feed(specify(), 200).split, {"shape": [200, 9, 10], "teacher": "a"}, []
    arguments = (network, split, CropFlip(1, False), header)
    write_table(tmp_path / "whole.logits", *arguments, quiet)

    def interrupted(line):
        pieces.append(line)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    path = tmp_path / "resumed.logits"
    with pytest.raises(KeyboardInterrupt):
        write_table(path, *arguments, interrupted, save_seconds=0)
    assert not path.exists() and read_header(aside(path))["rows"] == 3 * 128
    pieces.clear()
    write_table(path, *arguments, pieces.append, save_seconds=0)
    assert len(pieces) == 13, "12 of 15 batches and the end"
    assert path.read_bytes() == (tmp_path / "whole.logits").read_bytes() and not aside(path).exists()


@pytest.mark.parametrize("damage", ["other", "cut"])
def test_what_is_left_of_another_table_is_not_gone_on_with(specify, network, tmp_path, damage):
    split, header = generated_feed(specify(), 40).split, {"shape": [40, 9, 10], "teacher": "a"}
    arguments, path = (network, split, CropFlip(1, False)), tmp_path / "a.logits"
    write_table(path, *arguments, header, quiet)
    whole = path.read_bytes()
    part = aside(path)
    with open(part, "wb") as file:
        engine_table._note(file, {**header, "rows": 256, **({"teacher": "b"} if damage == "other" else {})})
        file.write(bytes(256 * 40 - (damage == "cut")))
    write_table(path, *arguments, header, quiet)
    assert path.read_bytes() == whole


def test_a_table_that_the_disk_does_not_hold_is_one_line(specify, network, tmp_path, monkeypatch):
    split, header = generated_feed(specify(), 40).split, {"shape": [40, 9, 10]}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 18495))
    with pytest.raises(UserError, match=r"the table needs 0\.0 MB, 0\.0 MB are free"):
        write_table(tmp_path / "a.logits", network, split, CropFlip(1, False), header, quiet)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 18496))
    write_table(tmp_path / "a.logits", network, split, CropFlip(1, False), header, quiet)
    assert (tmp_path / "a.logits").stat().st_size == 18496


def test_a_table_of_other_images_than_its_header_says_is_refused(specify, network, tmp_path):
    split = generated_feed(specify(), 39).split
    with pytest.raises(UserError, match="a table of 40 images is meant, there are 39"):
        write_table(tmp_path / "a.logits", network, split, CropFlip(1, False), {"shape": [40, 9, 10]}, quiet)


def test_a_table_is_in_fp32_whatever_the_teacher_was_trained_in(results, images, specify, network):
    results, teacher = results
    path, said = table_path(results, Key(teacher["id"], "last")), []
    run = results / "runs" / teacher["id"]
    weights = build_network("resnet8", "digits")
    weights.load_state_dict(load_tensors(run / "model.last.pt")["model"])
    feed = feed_of(specify(**{"SOLVER.PRECISION": "fp32"}), images)
    feed.number_views()
    batch = feed.batch(32)
    asked = LiveTeacher(weights.eval().to(memory_format=torch.channels_last), "fp32", features=False)(batch)[0].logits
    header = {"shape": [300, 81, 10]}
    assert torch.equal(TableTeacher(read_table(path, header), None)(batch)[0].logits, asked)
    tabulate(run, "last", images, path, "cpu", said.append)
    assert said == [f"{path}: is there, with the digest that it names"]


def test_numbers_that_changed_since_are_made_again(results, images):
    results, teacher = results
    path, said = table_path(results, Key(teacher["id"], "last")), []
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    tabulate(results / "runs" / teacher["id"], "last", images, path, "cpu", said.append)
    assert path.read_bytes() == whole and "are not those that it was written with" in said[0]


def test_a_full_disk_and_a_device_that_is_not_here_are_told(results, images):
    results, teacher = results
    run, path = results / "runs" / teacher["id"], table_path(results, Key(teacher["id"], "last"))
    with pytest.raises(UserError, match="--device nowhere: not usable here"):  # though there is nothing to do
        tabulate(run, "last", images, path, "nowhere", quiet)
    path.unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=re.escape(str(path))):
            tabulate(run, "last", images, path, "cpu", quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# Which one a run uses


def source(specification, results, weights=None, begun=None, **options):
    weights = weights or read_json(results / "runs" / specification.teacher_id / "record.json")["weights"]["last"]
    return teacher_source(specification, weights, results, CPU, begun, **options)


def test_a_table_of_something_else_is_not_used_and_said_so(specify, results):
    results, teacher = results
    student, said = specify(teacher=teacher, **KD), []
    assert source(student, results, report=pytest.fail).kind == "table"
    assert source(specify(), results, "0" * 64) == (None, "", None), "no teacher"
    found = source(student, results, weights="0" * 64, report=said.append)
    assert found.kind == "live" and "was made with another teacher" in found.why and found.why[-20:] in said[0]
    path = table_path(results, Key(teacher["id"], "last"))
    for content, problem in ((path.read_bytes()[:-4], "is not whole"), (b"PK", "is not a logit table")):
        path.write_bytes(content)
        found = source(student, results, report=said.append)
        assert (found.kind, found.why) == ("live", f"{path} {problem}") and problem in said[-1]
    path.unlink()
    found = source(student, results, report=pytest.fail)
    assert found == ("live", f"{path} is not there", None)


def test_runs_that_no_table_serves_have_a_live_teacher(specify, results):
    results, teacher = results
    for keys in ({**KD, "SOLVER.PRECISION": "fp64"}, {"DISTILLER.TYPE": "NONE"}):
        assert source(specify(teacher=teacher, **keys), results) == ("live", "", None)


def test_a_table_that_leaves_a_gpu_no_room_is_not_put_there(monkeypatch):
    """Unless a run was begun with it: then what else is on the GPU may be its neighbours'."""
    header, gpu = {"shape": [1000, 162, 100]}, torch.device("cuda")
    size = 4096 + 4 * 1000 * 162 * 100
    cases = ((2 * size, None, True), (2 * size - 1, None, False), (size, "table", True), (size - 1, "table", False))
    for free, begun, fits in cases:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * size))
        assert (_no_room(header, gpu, begun) == "") is fits
    assert _no_room(header, gpu, None) == "takes 64.8 MB, more than half of the 64.8 MB that are free on cuda"


def test_a_run_in_flight_whose_table_has_no_room_says_so(specify, results, monkeypatch):
    results, teacher = results
    monkeypatch.setattr(engine_teacher, "_no_room", lambda *arguments: "takes 2 MB of the 1 MB that are free")
    with pytest.raises(UserError, match=r"which takes 2 MB of .*; take a device with more room, or remove"):
        source(specify(teacher=teacher, **KD), results, begun="table")
    assert source(specify(teacher=teacher, **KD), results).why.endswith("takes 2 MB of the 1 MB that are free")


def test_a_run_in_flight_keeps_its_source(specify, images, results):
    results, teacher = results
    specification = specify(teacher=teacher, **KD)
    path, whole = table_path(results, Key(teacher["id"], "last")), trained(specification, images, results, "whole")
    for begun, wanted in (("table", "auto"), ("live", "never")):
        work = results.parent / begun
        begin(specification, images, results, work, wanted)
        state = load_tensors(work / STATE)["progress"]
        assert state["teacher_source"] == read_json(work / "progress.json")["teacher_source"] == begun
        if begun == "table":
            aside = path.rename(path.with_suffix(".away"))
            with pytest.raises(UserError, match=r"was begun with the table .*make it with `distillbench table --chec"):
                trained(specification, images, results, "out", work=work)
            assert (work / STATE).exists(), "nothing is lost"
            aside.rename(path)
        other = {"auto": "never", "never": "auto"}[wanted]
        out = trained(specification, images, results, f"{begun}.out", work=work, table=other)
        record = read_json(out / "record.json")
        assert (record["engine"]["teacher_source"], record["attempts"]) == (begun, 2)
        assert (out / "model.last.pt").read_bytes() == (whole / "model.last.pt").read_bytes()


def begin(specification, images, results, work, wanted):
    """Leave the state of a run that was killed after its first epoch."""

    def killed(line):
        raise KeyboardInterrupt

    options = {"device": "cpu", "save_seconds": 0, "table": wanted, "report": killed}
    with pytest.raises(KeyboardInterrupt):
        train(specification, images, work.with_suffix(".out"), work, results / "runs", **options)


def test_a_state_from_before_there_were_tables_has_a_live_teacher(specify, tmp_path):
    flight = Flight(tmp_path, specify(), {}, save_seconds=0)
    assert flight.teacher_source(quiet) is None, "nothing is gone on with"
    built = Learner(specify(), generated_feed(specify(), 32))
    progress = Progress(epoch=2)
    del progress.teacher_source, progress.why_live
    flight.save_sometimes(built, progress, 1.0)
    flight = Flight(tmp_path, specify(), {}, save_seconds=0)
    assert flight.teacher_source(quiet) == "live"
    assert flight.resume(built, quiet, "live").teacher_source == "live"


def test_a_table_made_by_hand_of_too_many_views_is_refused(images, results, monkeypatch):
    results, teacher = results
    monkeypatch.setattr("distillbench.evaluation.tabulate.has_views", lambda _: False)
    with pytest.raises(UserError, match="the views of digits are not finitely many"):
        tabulate(results / "runs" / teacher["id"], "last", images, results / "a", "cpu", quiet)

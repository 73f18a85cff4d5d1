"""Hold-out: what is trained on, what the best epoch is chosen on, and when the test images are looked at."""

import csv
import shutil

import numpy as np
import pytest
import torch
from standins import quiet

from distillbench.data import Images, trained_on
from distillbench.engine.run import splits, train
from distillbench.engine.weights import load_run, load_tensors
from distillbench.errors import UserError
from distillbench.evaluation.predictions import predict
from distillbench.evaluation.tabulate import tabulate
from distillbench.store.record import read_record
from distillbench.store.tables import Key, table_path

HOLDOUT = {"holdout": 0.1, "salt": 0}


def test_a_share_of_each_class_is_held_out_and_another_salt_holds_out_others(images):
    labels = images.train_labels
    held = {
        (fraction, salt): set(np.flatnonzero(~trained_on(labels, {"holdout": fraction, "salt": salt})))
        for fraction, salt in ((0.1, 0), (0.3, 0), (0.1, 1), (1e-6, 0))
    }
    for (fraction, _), positions in held.items():
        count = max(1, round(30 * fraction))
        assert np.bincount(labels[sorted(positions)]).tolist() == [count] * 10
    assert held[0.1, 0] < held[0.3, 0] and held[0.1, 0] != held[0.1, 1]
    assert trained_on(labels, "published").all()


def test_which_images_are_held_out_never_changes(images):
    """Numbers of the first class, as they were when the protocol was introduced."""
    held = np.flatnonzero(~trained_on(images.train_labels, HOLDOUT))
    assert held[images.train_labels[held] == 0].tolist() == [44, 173, 298]


def test_a_class_keeps_an_image_and_one_of_a_single_image_is_refused():
    assert trained_on(np.array([0, 0, 1, 1]), {"holdout": 0.5, "salt": 0}).sum() == 2
    with pytest.raises(UserError, match="class 1 has one training image"):
        trained_on(np.array([0, 0, 1]), HOLDOUT)


def test_the_two_parts_are_the_training_images_and_no_others(specify, images):
    training, held = splits(specify(protocol=HOLDOUT), images, torch.device("cpu"))
    positions = torch.cat([training.positions, held.positions])
    assert positions.sort().values.equal(torch.arange(300)) and len(held.labels) == 30
    for split in (training, held):
        assert split.images.equal(torch.from_numpy(images.train_images)[split.positions])
        assert split.labels.equal(torch.from_numpy(images.train_labels)[split.positions])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, specify, images):
    """(folder results, id) of a teacher that held out the same images, with its table."""
    results, specification = tmp_path_factory.mktemp("results"), specify(protocol=HOLDOUT, SOLVER__EPOCHS=1)
    out = results / "runs" / specification.id
    train(specification, images, out, results / "work", results / "runs", device="cpu", report=quiet)
    tabulate(out, "last", images, table_path(results, Key(specification.id, "last")), "cpu", quiet)
    return results, specification.id


def kd(specify, teacher, **keys):
    taught = {"kind": "run", "id": teacher[1], "checkpoint": "last"}
    keys = {"DISTILLER.TYPE": "KD", "SOLVER.BATCH_SIZE": 64, "SOLVER.EPOCHS": 3, **keys}  # the last batch has 14
    return specify(teacher=taught, protocol=HOLDOUT, **keys)


def test_training_never_looks_at_the_test_images_and_the_best_epoch_is_the_best_on_those_held_out(
    specify, images, teacher, tmp_path
):
    results, _ = teacher
    nothing = Images(images.train_images, images.train_labels, None, None, images.digest)
    specification, work = kd(specify, teacher), tmp_path / "work"
    train(specification, nothing, tmp_path / "out", work, results / "runs", device="cpu", report=quiet)
    with open(tmp_path / "out" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert not [name for name in rows[0] if name.startswith("test_")]
    reached = [float(row["val_top1"]) for row in rows]
    weights = load_tensors(tmp_path / "out" / "model.best.pt")["model"]
    _, network, _ = load_run(tmp_path / "out", "best", images)
    network.load_state_dict(weights)
    held = splits(specification, images, torch.device("cpu"))[1]
    with torch.inference_mode():
        top1 = network.eval()(held.normalised(held.images))[0].argmax(dim=1).eq(held.labels).double().mean() * 100
    assert top1 == pytest.approx(max(reached))
    predict(tmp_path / "out", "best", images, "cpu")
    (found,) = (tmp_path / "out").glob("eval/test-best-*/predictions.npz")
    assert len(np.load(found)["logits"]) == len(images.test_labels)


def test_a_table_of_all_training_images_serves_a_run_that_holds_some_out(specify, images, teacher, tmp_path):
    results = shutil.copytree(teacher[0], tmp_path / "results")
    specification, weights = kd(specify, teacher, SOLVER__PRECISION="fp32", SOLVER__BATCH_SIZE=54), {}
    for wanted in ("auto", "never"):
        out, work, said = tmp_path / wanted, tmp_path / f"{wanted}.work", []
        options = {"device": "cpu", "table": wanted, "report": said.append}
        train(specification, images, out, work, results / "runs", **options)
        weights[wanted] = (out / "model.last.pt").read_bytes()
        source = read_record(out / "record.json")["engine"]["teacher_source"]
        assert source == {"auto": "table", "never": "live"}[wanted], said
    assert weights["auto"] == weights["never"]

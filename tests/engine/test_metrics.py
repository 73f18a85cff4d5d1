"""Metrics of predictions, against independent formulations."""

import hashlib
import io
import shutil
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss, top_k_accuracy_score
from standins import LOGITS, TARGETS, TEACHER_LOGITS, with_ranks

from distillbench.commands import main
from distillbench.engine.run import train
from distillbench.errors import RunFailed, UserError
from distillbench.evaluation.measure import compute, write_metrics
from distillbench.evaluation.predictions import predict
from distillbench.reporting.collect import COSTS, collect, scope
from distillbench.reporting.sheets.details import columns
from distillbench.store import Store
from distillbench.store.layout import CHECKPOINTS
from distillbench.tasks.classification import metrics
from distillbench.tasks.classification import predictions as format
from distillbench.tasks.classification import stored as writing
from distillbench.tasks.classification.metrics import METRICS
from distillbench.tasks.classification.predictions import RANKS, Predictions, parse
from distillbench.tasks.classification.stored import Stored, ranked
from distillbench.tasks.classification.training import target_rank


def bare(logits, targets=TARGETS):
    """Predictions as they were before ranks were kept."""
    return Predictions(targets, {"logits": logits})


def read(path):
    with open(path, "rb") as file:
        return parse(file, path)


BOTH = pytest.mark.parametrize("form", [bare, with_ranks])


@BOTH
def test_accuracy_likelihood_and_brier_score_are_scikit_learns(form):
    probabilities = softmax(LOGITS, axis=1)
    assert metrics.top1(form(LOGITS)) == pytest.approx(100 * top_k_accuracy_score(TARGETS, LOGITS, k=1))
    assert metrics.top5(form(LOGITS)) == pytest.approx(100 * top_k_accuracy_score(TARGETS, LOGITS, k=5))
    assert metrics.nll(form(LOGITS)) == pytest.approx(log_loss(TARGETS, probabilities))
    each = [brier_score_loss(c == TARGETS, probabilities[:, c]) for c in range(10)]
    assert metrics.brier(form(LOGITS)) == pytest.approx(sum(each), rel=1e-3)


@BOTH
def test_calibration_error_is_the_weighted_gap_of_fifteen_equal_bins(form):
    """Of predictions that are too sure in some bins and not sure enough in others, so that bins decide."""
    probabilities = softmax(LOGITS, axis=1)
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    targets = np.where(np.sin(40 * confidence) > 0, predicted, TARGETS)
    right = predicted == targets
    gaps = []
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            gaps.append(inside.mean() * (right[inside].mean() - confidence[inside].mean()))
    assert min(gaps) < -0.01 and max(gaps) > 0.01
    assert metrics.ece(form(LOGITS, targets)) == pytest.approx(100 * sum(map(abs, gaps)))
    certain = np.where(np.arange(10) == TARGETS[:, None], 1000.0, 0.0)
    assert metrics.ece(form(certain)) == metrics.brier(form(certain)) == 0


@BOTH
def test_likeness_to_the_teacher(form):
    kl = (
        (softmax(TEACHER_LOGITS, axis=1) * (log_softmax(TEACHER_LOGITS, axis=1) - log_softmax(LOGITS, axis=1)))
        .sum(axis=1)
        .mean()
    )
    assert metrics.kl_to_teacher(form(LOGITS), form(TEACHER_LOGITS)) == pytest.approx(kl, rel=1e-3)
    same = 100 * np.mean([a.argmax() == b.argmax() for a, b in zip(LOGITS, TEACHER_LOGITS, strict=True)])
    assert metrics.agreement(form(LOGITS), form(TEACHER_LOGITS)) == pytest.approx(same)
    assert metrics.agreement(form(LOGITS), form(LOGITS + 7)) == 100
    assert metrics.kl_to_teacher(bare(LOGITS), bare(LOGITS + 7)) == pytest.approx(0, abs=1e-12)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, images, specify):
    """A store with a teacher and its student, both trained and predicted."""
    store = Store(tmp_path_factory.mktemp("trained"))
    teacher = specify(seed=7)
    taught = {"kind": "run", "id": teacher.id, "checkpoint": "last"}
    student = specify(teacher=taught, **{"DISTILLER.TYPE": "KD"})
    for run in (teacher, student):
        train(run, images, store.run(run.id), store.work(run.id), store.runs, device="cpu", report=lambda line: None)
        for checkpoint in CHECKPOINTS:
            predict(store.run(run.id), checkpoint, images, device="cpu")
            write_metrics(store, run.id, checkpoint)
    return store, teacher.id, student.id


def test_a_student_is_compared_with_the_checkpoint_that_taught_it(trained):
    store, teacher, student = trained
    soft = read(store.evaluation(teacher, "last") / "predictions.npz")
    own = read(store.evaluation(student, "best") / "predictions.npz")
    found = {entry["metric"]: entry["value"] for entry in store.metrics(student, "best")}
    assert found["agreement"] == metrics.agreement(own, soft)
    assert found["kl_to_teacher"] == metrics.kl_to_teacher(own, soft)
    assert not {n for n, m in METRICS.items() if m.teacher} & {e["metric"] for e in store.metrics(teacher, "last")}


def test_the_checkpoint_that_did_not_teach_plays_no_part(trained, tmp_path):
    trained_store, teacher, student = trained
    shutil.copytree(trained_store.results, tmp_path / "results")
    store = Store(tmp_path)
    other = store.evaluation(teacher, "best") / "predictions.npz"
    with np.load(other) as archive:
        arrays = dict(archive)
    np.savez(other, **{**arrays, "logits": arrays["logits"][::-1]})
    before = store.metrics(student, "best")
    assert write_metrics(store, student, "best")["metrics"] == before


def test_every_metric_and_cost_has_a_column_in_the_details(trained):
    store, teacher, student = trained
    index = pd.DataFrame({"run": [teacher, student]})
    found, costs = collect(index, store)
    assert set(found["metric"]) | set(COSTS) == {column.key for column in columns(scope(index, store))}
    assert costs["parameters"].tolist() == [78042, 78042] and (costs[COSTS] > 0).all().all()


def test_missing_predictions_of_the_teacher_are_one_line(trained, tmp_path, capsys, monkeypatch):
    store, teacher, student = trained
    shutil.copytree(store.results, tmp_path / "results")
    path = Store(tmp_path).evaluation(teacher, "last") / "predictions.npz"
    path.unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", student, "--stage", "metrics"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and teacher in lines[0] and "distillbench evaluate" in lines[0]


# Of many images and classes


@BOTH
def test_metrics_of_shards_are_those_of_the_whole(form, monkeypatch):
    own, teacher = form(LOGITS), form(TEACHER_LOGITS)
    expected, _ = compute(METRICS, own, teacher)
    assert len([*own.shards()]) == 1
    monkeypatch.setattr(format, "SHARD", 79)  # 7 images of 10 classes
    assert [len(shard.targets) for shard in own.shards()] == [*[7] * 57, 1]
    assert compute(METRICS, form(LOGITS), form(TEACHER_LOGITS)) == (expected, {})


def test_logits_that_are_not_finite_are_noticed_in_every_shard(monkeypatch):
    monkeypatch.setattr(format, "SHARD", 79)
    logits = LOGITS.copy()
    assert with_ranks(logits).finite and Predictions(TARGETS, {}).finite
    logits[-1, 0] = np.nan
    assert not with_ranks(logits).finite


def test_metrics_take_a_fraction_of_the_memory_of_logits_in_double_precision(monkeypatch):
    monkeypatch.setattr(format, "SHARD", 2**14)
    draws, images, classes = np.random.default_rng(0), 2_000, 500
    targets = draws.integers(0, classes, images)
    own, teacher = (
        Predictions(targets, {"logits": draws.normal(0, 2, (images, classes)).astype(np.float16)}) for _ in range(2)
    )
    assert metrics.brier(own) > 0  # whatever is loaded once is there
    tracemalloc.start()
    assert metrics.brier(own) > 0 and metrics.kl_to_teacher(own, teacher) > 0 and own.finite
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < images * classes * 8 / 4


@pytest.mark.parametrize("sizes", [[400], [128, 128, 128, 16], [1] * 400])
def test_what_is_stored_does_not_depend_on_batches_and_shards(sizes, monkeypatch):
    logits, targets = torch.from_numpy(LOGITS).float(), torch.from_numpy(TARGETS)

    def stored(sizes):
        held = Stored(len(targets))
        for batch in zip(logits.split(sizes), targets.split(sizes), strict=True):
            held.add(*batch)
        return held.content()

    expected, computed = stored([400]), []
    monkeypatch.setattr(writing, "SHARD", 790)
    monkeypatch.setattr(writing, "ranked", lambda *batch: computed.append(len(batch[0])) or ranked(*batch))
    found = stored(sizes)
    assert found.keys() == expected.keys() and list(found) == [*RANKS, "logits", "targets", "targets_sha256"]
    for name, array in expected.items():
        assert np.array_equal(found[name], array) and getattr(found[name], "dtype", 0) == getattr(array, "dtype", 0)
    assert sum(computed) == 400 and max(computed) < 79 + max(sizes)
    assert found["logits"].dtype == np.float16 and found["targets"].dtype == np.int32


def test_logits_beyond_half_precision_are_refused_in_every_shard(monkeypatch):
    monkeypatch.setattr(writing, "SHARD", 790)
    logits = torch.from_numpy(LOGITS).float()
    logits[-1, 3] = 1e6
    held = Stored(400)
    with pytest.raises(RunFailed, match=r"the logits of 1 of [0-9]+ images are beyond fp16, the largest is 1e[+]06"):
        for batch in zip(logits.split(79), torch.from_numpy(TARGETS).split(79), strict=True):
            held.add(*batch)
        held.content()


def test_predictions_are_written_as_numpy_writes_them(trained):
    """Byte for byte: results of before are those of now."""
    store, teacher, _ = trained
    path, written = store.evaluation(teacher, "last") / "predictions.npz", io.BytesIO()
    with np.load(path) as archive:
        names, arrays = archive.files, dict(archive)
    facts = ["dataset_sha256", "run_sha256", "weights_sha256", "precision"]
    assert names == [*RANKS, "logits", "targets", "targets_sha256", *facts]
    np.savez_compressed(written, **arrays)
    assert path.read_bytes() == written.getvalue()


def test_predictions_for_other_images_are_not_compared(trained, tmp_path):
    store, teacher, student = trained
    shutil.copytree(store.results, tmp_path / "results")
    path = Store(tmp_path).evaluation(teacher, "last") / "predictions.npz"
    with np.load(path) as archive:
        arrays = {name: array[:50] if array.ndim else array for name, array in archive.items()}
    np.savez(path, **{**arrays, "targets_sha256": hashlib.sha256(arrays["targets"]).hexdigest()})
    with pytest.raises(UserError, match="predictions for other images"):
        write_metrics(Store(tmp_path), student, "last")


def test_predictions_of_other_images_are_refused(trained, images):
    store, teacher, _ = trained
    fewer = images._replace(test_images=images.test_images[:50], test_labels=images.test_labels[:50])
    with pytest.raises(UserError, match="digits has the digest"):
        predict(store.run(teacher), "last", fewer, device="cpu")


def test_changed_labels_are_refused(trained, tmp_path):
    store, teacher, _ = trained
    path = store.evaluation(teacher, "last") / "predictions.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    assert read(path).targets.tolist() == arrays["targets"].tolist()
    np.savez(tmp_path / "predictions.npz", **{**arrays, "targets": arrays["targets"][::-1].copy()})
    with pytest.raises(UserError, match="the labels are not those it was written with"):
        read(tmp_path / "predictions.npz")


def test_of_equal_logits_the_smaller_class_comes_first():
    logits, targets = torch.tensor([[1.0, 3.0, 3.0, 0.0]] * 4), torch.arange(4)
    ranks = [2, 0, 1, 3]
    assert target_rank(logits, targets).tolist() == ranked(logits, targets)["target_rank"].tolist() == ranks
    assert ranked(logits, targets)["first_classes"].tolist() == [[1, 2, 0, 3]] * 4
    assert bare(logits.double().numpy(), targets.numpy()).target_rank.tolist() == ranks

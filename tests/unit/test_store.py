"""The store: files are whole, a run is the one that its folder names, and what is derived belongs to what is here."""

import copy
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import stores

from distillbench.commands import main
from distillbench.config.specification import Specification, read_specification
from distillbench.errors import UserError
from distillbench.evaluation.measure import write_metrics
from distillbench.files import read_json, to_json, write_atomically
from distillbench.planning import plan_suite
from distillbench.reporting.collect import METRICS, collect, failures, scope
from distillbench.store import Store
from distillbench.store import specifications as module
from distillbench.store.layout import CHECKPOINTS, parts


@pytest.fixture
def store(tmp_path):
    """Of a suite whose runs are finished; the teacher's best checkpoint, which is another than its last, taught."""
    suite = stores.SUITE.replace("pairs:", "teachers: {checkpoint: best}\npairs:")
    stores.new_project(tmp_path, suite)
    stores.finish_all(tmp_path)
    return Store(tmp_path)


@pytest.fixture
def runs(store, tmp_path):
    return stores.runs(tmp_path)


# Files


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "record.json"
    write_atomically(path, "old")

    def fail(*arguments):
        raise OSError("no space left")

    for function in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises(OSError, match="no space left"):
                write_atomically(path, "new")
        assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["record.json"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        function = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, function=function: (calls.append(name), function(*a)))
    write_atomically(tmp_path / "a", b"content")
    assert calls == ["fsync", "replace"] and (tmp_path / "a").read_bytes() == b"content"


# Names and states


def test_a_run_is_named_by_a_unique_beginning_of_its_id_or_hash_only(store, runs):
    run = runs["KD/s1"]
    assert {store.find(name) for name in (run, f"results/runs/{run}/", store.run(run), run.rpartition("-")[2][:8])} == {
        run
    }
    with pytest.raises(UserError, match="2 runs begin so"):
        store.find(run.rpartition("/")[0])
    with pytest.raises(UserError, match="no such run"):
        store.find("digits/resnet9")


def test_what_belongs_to_another_run_is_refused(store, runs):
    one, other = runs["KD/s0"], runs["KD/s1"]
    for checkpoint in CHECKPOINTS:
        files = [store.evaluation(run, checkpoint) / "metrics.json" for run in (one, other)]
        shutil.copy(*files)
        with pytest.raises(UserError, match="metrics of another run"):
            store.metrics(other, checkpoint)
    for name in ("spec.json", "model.last.pt"):
        shutil.copy(store.run(one) / name, store.run(other) / name)
    with pytest.raises(UserError, match=f"holds the specification of {one}"):
        store.specification(other)


def test_a_run_is_done_with_both_evaluations_trained_without_and_missing_before(store, runs):
    run = runs["KD/s1"]
    assert store.state(run) == ("done", "")
    for checkpoint in CHECKPOINTS:
        path = store.evaluation(run, checkpoint) / "metrics.json"
        content = path.read_bytes()
        path.unlink()
        assert store.state(run) == ("trained", "not evaluated")
        path.write_bytes(content)
    shutil.rmtree(store.run(run))
    assert store.state(run) == ("missing", "")
    write_atomically(store.work(run) / "failure.json", to_json({"reason": "loss is nan"}))
    assert store.state(run) == ("failed", "loss is nan")


def test_a_run_is_trained_again_only_for_what_needs_its_weights(store, runs):
    """`plan` and `status` say of it what the workflow does."""
    run, places = runs["KD/s1"], [store.evaluation(runs["KD/s1"], c) for c in CHECKPOINTS]
    (store.run(run) / "model.best.pt").unlink()
    assert store.state(run) == ("done", "") and not store.untrained(runs.values())
    for place in places:
        (place / "metrics.json").unlink()
    assert store.state(run) == ("trained", "not evaluated") and not store.untrained(runs.values())
    (places[0] / "predictions.npz").unlink()
    state, detail = store.state(run)
    assert (state, store.untrained(runs.values())) == ("in part", {run}) and "has no model.best.pt" in detail
    (store.run(run) / "model.best.pt").touch()
    assert store.state(run) == ("trained", "not evaluated") and not store.untrained(runs.values())


# What is derived from what


def test_a_part_is_here_with_all_of_its_files(store, runs):
    for part in parts(store.specification(runs["KD/s0"])):
        assert part.here(store.run(runs["KD/s0"]))
        for name in part.files:
            path = store.run(runs["KD/s0"]) / name
            path.rename(path.with_name("aside"))
            assert not part.here(store.run(runs["KD/s0"])), name
            path.with_name("aside").rename(path)


def test_a_student_of_other_weights_than_its_teacher_holds_is_named(store, runs):
    """The checkpoint that taught counts, and no other."""
    teacher, student = runs["Teacher/s0"], runs["KD/s0"]
    path = store.run(teacher) / "record.json"
    record = read_json(path)
    path.write_text(to_json({**record, "weights": {**record["weights"], "last": "1" * 64}}))
    assert store.other_realisation(student) is None
    path.write_text(to_json({**record, "weights": {**record["weights"], "best": "2" * 64}}))
    line = store.other_realisation(student)
    assert student in line and record["weights"]["best"][:12] in line and "2" * 12 in line
    assert store.other_realisation(runs["NONE/s0"]) is None


def stale(store, run):
    return {(name, checkpoint) for name, checkpoint in store.stale(run)}


def test_nothing_is_stale_where_everything_fits(store, runs):
    assert all(store.stale(run) == {} for run in runs.values())


def test_predictions_of_other_weights_are_stale_with_their_metrics(store, runs):
    run = runs["NONE/s0"]
    path = store.run(run) / "record.json"
    record = read_json(path)
    path.write_text(to_json({**record, "weights": {**record["weights"], "best": "3" * 64}}))
    assert stale(store, run) == {("predictions", "best"), ("metrics", "best")}
    assert store.state(run)[0] == "stale"


def predict_again(store, run, checkpoint, weights_sha256):
    """As after a retraining: predictions, and the record, name other weights."""
    path = store.run(run) / "record.json"
    record = read_json(path)
    path.write_text(to_json({**record, "weights": {**record["weights"], checkpoint: weights_sha256}}))
    stores.predict(store.run(run), store.specification(run), checkpoint, 40, weights_sha256)


def test_metrics_of_other_predictions_are_stale(store, runs):
    run = runs["NONE/s1"]
    predict_again(store, run, "last", "4" * 64)
    assert stale(store, run) == {("metrics", "last")}
    write_metrics(store, run, "last")
    assert store.stale(run) == {}


def test_metrics_against_other_predictions_of_the_teacher_are_stale(store, runs):
    teacher, student = runs["Teacher/s0"], runs["KD/s1"]
    predict_again(store, teacher, "last", "5" * 64)
    assert store.stale(student) == {}
    predict_again(store, teacher, "best", "6" * 64)
    assert stale(store, student) == {("metrics", "last"), ("metrics", "best")}
    for checkpoint in CHECKPOINTS:
        write_metrics(store, student, checkpoint)
    assert store.stale(student) == {} and store.stale(runs["NONE/s0"]) == {}


def test_predictions_without_ranks_are_stale_where_the_weights_are_here(store, runs):
    run = runs["NONE/s0"]
    path = store.evaluation(run, "last") / "predictions.npz"
    with np.load(path) as archive:
        kept = ("logits", "targets", "targets_sha256", "run_sha256", "weights_sha256")
        np.savez(path, **{name: archive[name] for name in kept})
    write_metrics(store, run, "last")
    assert stale(store, run) == {("predictions", "last"), ("metrics", "last")}
    (store.run(run) / "model.last.pt").unlink()
    assert store.stale(run) == {}


def test_the_failed_runs_of_a_suite_are_those_not_repaired_since(store, runs, tmp_path):
    for name in ("NONE/s0", "KD/s1"):
        write_atomically(store.work(runs[name]) / "failure.json", to_json({"reason": f"of {name}"}))
    shutil.rmtree(store.run(runs["KD/s1"]))
    shutil.rmtree(store.run(runs["KD/s0"]))
    index = pd.DataFrame({"run": list(runs.values())})
    assert failures(index, store, pd.DataFrame(columns=METRICS), scope(index, store)) == {runs["KD/s1"]: "of KD/s1"}


def test_what_is_collected_is_what_the_runs_say(store, runs):
    """Each run once, however often it stands in the index; nothing of a run that is not here."""
    shutil.rmtree(store.run(runs["KD/s0"]))
    path = store.run(runs["KD/s1"]) / "record.json"
    path.write_text(to_json({**read_json(path), "images_per_second": 0.0}))  # as it once was where it was unknown
    index = pd.DataFrame({"run": [*runs.values(), *runs.values()]})
    metrics, costs = collect(index, store)
    here = [run for run in runs.values() if run != runs["KD/s0"]]
    expected = [(run, c, e["metric"], e["value"]) for run in here for c in CHECKPOINTS for e in store.metrics(run, c)]
    assert list(metrics[["run", "checkpoint", "metric", "value"]].itertuples(index=False, name=None)) == expected
    assert costs["run"].tolist() == here and costs["seconds"].tolist() == [10.0] * 4
    rates = costs.set_index("run")["images_per_second"]
    assert np.isnan(rates.pop(runs["KD/s1"])) and rates.tolist() == [50.0] * 3


def test_a_student_is_measured_against_the_checkpoint_that_taught_it(store, runs):
    teacher, student = runs["Teacher/s0"], runs["KD/s0"]
    for checkpoint, correct in (("best", 40), ("last", 80)):  # the student: 50
        stores.predict(store.run(teacher), store.specification(teacher), checkpoint, correct, "8" * 64)
    for checkpoint in CHECKPOINTS:
        write_metrics(store, student, checkpoint)
        values = {entry["metric"]: entry["value"] for entry in store.metrics(student, checkpoint)}
        assert (values["top1"], values["agreement"]) == (50, 90)


def test_evaluating_makes_what_is_missing_and_keeps_what_is_there(store, runs, tmp_path, monkeypatch):
    """Metrics are computed from the predictions that are there, whatever they say."""
    monkeypatch.chdir(tmp_path)
    run = runs["NONE/s1"]
    stores.predict(store.run(run), store.specification(run), "best", 30, store.record(run)["weights"]["best"])
    before = {c: (store.evaluation(run, c) / "predictions.npz").read_bytes() for c in CHECKPOINTS}
    for checkpoint in CHECKPOINTS:
        (store.evaluation(run, checkpoint) / "metrics.json").unlink()
    assert main(["evaluate", run]) == 0
    found = {c: next(e["value"] for e in store.metrics(run, c) if e["metric"] == "top1") for c in CHECKPOINTS}
    assert found == {"last": 50, "best": 30} and store.state(run) == ("done", "")
    assert before == {c: (store.evaluation(run, c) / "predictions.npz").read_bytes() for c in CHECKPOINTS}


# Runs that are not there


@pytest.fixture
def older(tmp_path):
    """(store, {run: id of the run that another version of its trainer made}) of a suite of 13 runs, all missing."""
    store = stores.new_project(tmp_path, stores.SUITE.replace("[0, 1]", "[0, 1, 2, 3, 4, 5]"))
    found = {}
    for run, specification in plan_suite("small", root=tmp_path).runs.items():
        data = copy.deepcopy(specification.data)
        data["trainer"]["version"] = 7
        found[run] = Specification(data).id
        write_atomically(store.run(found[run]) / "spec.json", to_json(Specification(data).as_file()))
    return store, found


def test_a_missing_run_names_the_one_that_other_code_made(older):
    store, found = older
    for run, before in found.items():
        assert store.state(run) == ("missing", f"code changed since {before.rpartition('/')[2]}")


def test_a_run_of_other_values_is_not_taken_for_one_of_other_code(older):
    store, found = older
    run, before = next(iter(found.items()))
    data = copy.deepcopy(store.specification(before).data)
    data["schedule"]["EPOCHS"] += 1
    (store.run(before) / "spec.json").unlink()
    write_atomically(store.run(Specification(data).id) / "spec.json", to_json(Specification(data).as_file()))
    assert store.state(run) == ("missing", "")


def test_the_finished_runs_are_read_once_however_many_are_missing(older, monkeypatch):
    store, found = older
    read = []
    monkeypatch.setattr(module, "read_specification", lambda path: read.append(Path(path)) or read_specification(path))
    for run in found:
        store.state(run)
    finished = [path for path in read if str(store.runs) in str(path)]
    assert len(found) == 13 and sorted(finished) == sorted(store.run(before) / "spec.json" for before in found.values())


def test_a_run_whose_files_changed_is_read_again(store, runs, tmp_path, monkeypatch):
    """And one whose files did not is not: what is as it was when nothing was missing needs a look at the disk alone."""
    run, teacher, planned = runs["KD/s0"], runs["Teacher/s0"], plan_suite("small", root=tmp_path).runs

    def missing(names=()):
        looked = []
        with monkeypatch.context() as patch:
            read = Store._missing
            patch.setattr(Store, "_missing", lambda store, run, stale: looked.append(run) or read(store, run, stale))
            fresh = Store(tmp_path, planned)
            assert fresh.missing(run) == names
        fresh.settled.save()
        return bool(looked)

    assert missing() and not missing()
    path = store.evaluation(run, "best") / "metrics.json"
    write_atomically(path, path.read_bytes())  # other bytes for all that size and name say
    assert missing() and not missing()
    weights = store.record(teacher)["weights"]["best"]
    stores.predict(store.run(teacher), store.specification(teacher), "best", 40, weights)
    assert missing(("metrics",)) and missing(("metrics",))
    write_metrics(store, teacher, "best")
    write_metrics(store, run, "last")
    write_metrics(store, run, "best")
    (tmp_path / "results/settled.json").write_text("[")
    assert missing() and not missing()
    content = read_json(path)
    content["predictions"]["fingerprint"] = "0" * 64
    write_atomically(path, to_json(content))
    shutil.move(store.run(teacher), tmp_path / "away")
    assert missing() and missing(), "what is stale is not settled, though nothing can be made without the teacher"
    shutil.move(tmp_path / "away", store.run(teacher))
    assert missing(("metrics",))

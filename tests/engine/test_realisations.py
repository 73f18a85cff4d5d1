"""Files of different realisations of a run are told apart, never mixed, and an old run stays until the new is whole."""

import json
import shutil

import numpy as np
import pytest
import torch
from stores import files, finish, finish_all, new_project, runs

from distillbench.commands import main
from distillbench.engine.run import train
from distillbench.engine.weights import load_tensors, save_tensors, weights_digest
from distillbench.errors import UserError
from distillbench.evaluation.measure import write_metrics
from distillbench.evaluation.predictions import predict
from distillbench.files import read_json, to_json
from distillbench.planning import plan_suite
from distillbench.store import LookingStore, Store
from distillbench.store import place as store_module
from distillbench.store.claim import claim
from distillbench.store.layout import CHECKPOINTS, RUN_FILES
from distillbench.tasks.classification import predictions as format
from distillbench.tasks.classification.predictions import RANKS


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A suite of untrained small files: done, as far as they say."""
    new_project(tmp_path)
    finish_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Store()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, images, specify):
    """The root of a store with a teacher, its student and the images, really trained."""
    root = tmp_path_factory.mktemp("trained")
    teacher = specify(seed=7)
    student = specify(teacher={"kind": "run", "id": teacher.id, "checkpoint": "last"}, **{"DISTILLER.TYPE": "KD"})
    for specification in (teacher, student):
        learn(Store(root), specification, images)
        evaluate(Store(root), specification, images)
    return root, teacher, student


@pytest.fixture
def copied(trained, tmp_path, monkeypatch):
    root, teacher, student = trained
    shutil.copytree(root / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return Store(), teacher, student


def learn(store, specification, images, report=lambda line: None, **options):
    run = specification.id
    train(specification, images, store.run(run), store.work(run), store.runs, device="cpu", report=report, **options)


def evaluate(store, specification, images):
    for checkpoint in CHECKPOINTS:
        predict(store.run(specification.id), checkpoint, images, device="cpu")
        write_metrics(store, specification.id, checkpoint)


def with_other_weights(store, run):
    """Give a run another realisation's last checkpoint, as if it came from another machine; returns its digest."""
    path, record = store.run(run) / "model.last.pt", read_json(store.run(run) / "record.json")
    model = load_tensors(path)
    model["model"]["fc.bias"] += 1
    save_tensors(path, model)
    record["weights"]["last"] = weights_digest(model["model"])
    (store.run(run) / "record.json").write_text(to_json(record))
    return record["weights"]["last"]


def rewrite(path, drop=(), **changes):
    """Other arrays in a predictions.npz."""
    with np.load(path) as archive:
        content = {name: array for name, array in archive.items() if name not in drop}
    np.savez(path, **{**content, **changes})


def predictions(store, run, checkpoint="last"):
    return store.evaluation(run, checkpoint) / "predictions.npz"


# What is stale


def test_predictions_of_other_weights_are_stale_and_so_are_their_metrics(store, capsys):
    run = runs(".")["NONE/s0"]
    assert store.state(run) == ("done", "") and store.stale(run) == {}
    rewrite(predictions(store, run), weights_sha256="0" * 64)
    assert set(store.stale(run)) == {("predictions", "last"), ("metrics", "last")}
    assert store.state(run)[0] == "stale"
    assert main(["status", "small"]) == 0
    out = capsys.readouterr().out
    assert "1 stale" in out and f"stale    {run}: predictions of other weights" in out


@pytest.mark.parametrize("command", [["tables", "small"], ["tables", "small", "--partial", "--out", "there"]])
def test_a_table_of_stale_parts_says_so(store, capsys, command):
    ids = runs(".")
    rewrite(predictions(store, ids["NONE/s0"]), weights_sha256="0" * 64)
    finish(store, ids["Teacher/s0"], weight=2.0)
    capsys.readouterr()
    assert main(command) == 0
    lines = capsys.readouterr().err.splitlines()
    assert f"warning: {ids['NONE/s0']}: stale: predictions of other weights" in lines[0]
    assert sum("different realisation" in line for line in lines) == 2


def test_metrics_of_other_predictions_are_stale(store):
    run = runs(".")["NONE/s0"]
    path = store.evaluation(run, "best") / "metrics.json"
    content = read_json(path)
    content["predictions"]["weights_sha256"] = "0" * 64
    path.write_text(to_json(content))
    assert store.stale(run) == {("metrics", "best"): "metrics of other predictions"}
    predictions(store, run, "best").unlink()  # compared with the weights that the record names
    assert set(store.stale(run)) == {("metrics", "best")}
    (store.run(run) / "record.json").unlink()  # with nothing
    assert store.stale(run) == {}


def test_a_teacher_trained_anew_makes_the_metrics_against_it_stale_and_is_reported(store, capsys):
    ids = runs(".")
    finish(store, ids["Teacher/s0"], weight=2.0)
    for run in (ids["KD/s0"], ids["KD/s1"]):
        assert set(store.stale(run).values()) == {"metrics against other predictions of the teacher"}
        assert "different realisation" in store.other_realisation(run)
        for checkpoint in CHECKPOINTS:
            write_metrics(store, run, checkpoint)
        assert store.state(run) == ("done", "")
    assert store.state(ids["NONE/s0"]) == ("done", "")
    assert main(["status", "small"]) == 0
    assert capsys.readouterr().out.count("warning: ") == 2, "repaired metrics do not hide the other realisation"


def test_predictions_from_before_ranks_were_kept_are_read_and_redone_only_with_weights(store):
    run = runs(".")["NONE/s0"]
    for checkpoint in CHECKPOINTS:
        rewrite(predictions(store, run, checkpoint), drop=(*RANKS, "precision"))
        content = write_metrics(store, run, checkpoint)
        assert content["predictions"]["ranked_in"] == "fp16"
        assert {e["metric"]: e["value"] for e in content["metrics"]}["top1"] == 50
    assert set(store.stale(run).values()) >= {"predictions without ranks"}
    for path in store.run(run).glob("model.*.pt"):
        path.unlink()
    assert store.state(run) == ("done", "")


def test_metrics_from_before_they_named_their_origin_are_renewed_from_predictions_and_read_alone(store):
    run = runs(".")["NONE/s0"]
    for path in store.run(run).rglob("metrics.json"):
        path.write_text(to_json({k: v for k, v in read_json(path).items() if "predictions" not in k}))
    assert {file for file, _ in store.stale(run)} == {"metrics"}
    for path in (*store.run(run).rglob("predictions.npz"), store.run(run) / "record.json"):
        path.unlink()
    assert store.state(run) == ("done", "") and store.metrics(run, "last")


def test_evaluating_renews_what_is_stale_and_keeps_what_is_not(copied):
    store, teacher, _ = copied
    assert main(["data", "digits"]) == 0
    rewrite(predictions(store, teacher.id, "best"), weights_sha256="0" * 64)
    kept = predictions(store, teacher.id, "last").read_bytes()
    assert main(["evaluate", teacher.id, "--device", "cpu"]) == 0
    assert store.state(teacher.id) == ("done", "")
    assert predictions(store, teacher.id, "last").read_bytes() == kept
    assert not store.work(teacher.id).exists()


def test_predictions_that_are_asked_for_are_made_anew(copied):
    store, teacher, _ = copied
    assert main(["data", "digits"]) == 0
    paths = [predictions(store, teacher.id, checkpoint) for checkpoint in CHECKPOINTS]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        rewrite(path, logits=np.zeros((1, 10), np.float16))
    assert main(["evaluate", teacher.id, "--stage", "predictions", "--device", "cpu"]) == 0
    assert [path.read_bytes() for path in paths] == before


# Ranks


def test_what_fp16_would_decide_is_decided_in_the_runs_precision(copied):
    store, teacher, _ = copied
    with np.load(predictions(store, teacher.id)) as archive:
        close = archive["logits"].copy()
        targets, ranks = archive["targets"], archive["target_rank"]
    close[:] = 1  # to fp16 all classes are equal: the first one would be predicted
    rewrite(predictions(store, teacher.id), logits=close)
    values = {e["metric"]: e["value"] for e in write_metrics(store, teacher.id, "last")["metrics"]}
    history = (store.run(teacher.id) / "history.csv").read_text().splitlines()
    last = dict(zip(history[0].split(","), history[-1].split(","), strict=True))
    assert values["top1"] == pytest.approx(float(last["test_top1"]))
    assert values["top5"] == pytest.approx(float(last["test_top5"]))
    assert values["nll"] == pytest.approx(float(last["test_loss_ce"]), rel=1e-5)
    assert values["top1"] == 100 * (ranks == 0).mean() != 100 * (targets == 0).mean()


def test_predictions_name_the_images_that_were_used(copied, images):
    store, teacher, _ = copied
    with np.load(predictions(store, teacher.id)) as archive:
        assert str(archive["dataset_sha256"]) == images.digest == teacher["dataset"]["sha256"]


# Training again


def test_an_old_run_stays_until_the_new_one_is_complete(copied, images):
    store, teacher, _ = copied
    before = files(store.runs)
    model = load_tensors(store.run(teacher.id) / "model.last.pt")  # as if it came from another machine
    model["model"]["fc.bias"] += 1
    for checkpoint in CHECKPOINTS:
        save_tensors(store.run(teacher.id) / f"model.{checkpoint}.pt", model)
    record = read_json(store.run(teacher.id) / "record.json")
    record["weights"] = dict.fromkeys(CHECKPOINTS, weights_digest(model["model"]))
    (store.run(teacher.id) / "record.json").write_text(to_json(record))
    changed = files(store.runs)
    learn(store, teacher, images)
    assert files(store.runs) == changed, "a finished run is left alone"
    learn(store, teacher, images, lambda line: assert_equal(files(store.runs), changed), again=True)
    after = files(store.runs)
    names = {f"{teacher.id}/{name}" for name in RUN_FILES}
    assert {n for n in after if after[n] != changed[n]} == names - {
        f"{teacher.id}/{n}" for n in ("spec.json", "history.csv")
    }
    assert {n for n in after if after[n] != before[n]} == {f"{teacher.id}/record.json"}, "bit by bit what it was"


def assert_equal(left, right):
    assert left == right


def test_a_training_again_that_fails_leaves_the_old_run(copied, images):
    store, teacher, _ = copied
    before = files(store.runs)

    def stop(line):
        raise KeyboardInterrupt

    for error in (KeyboardInterrupt, KeyboardInterrupt):
        with pytest.raises(error):
            learn(store, teacher, images, stop, again=True)
    assert files(store.runs) == before and store.state(teacher.id) == ("done", "")


@pytest.mark.parametrize("count", range(len(RUN_FILES)))
def test_a_run_killed_while_its_files_are_brought_is_completed_by_the_next_call(copied, images, monkeypatch, count):
    store, teacher, _ = copied
    shutil.rmtree(store.run(teacher.id))
    moves, move = [], store_module.move

    def killed(path, target):
        if len(moves) == count:
            raise KeyboardInterrupt
        moves.append(target)
        move(path, target)

    monkeypatch.setattr(store_module, "move", killed)
    with pytest.raises(KeyboardInterrupt):
        learn(store, teacher, images)
    assert not (store.run(teacher.id) / "record.json").exists()
    monkeypatch.setattr(store_module, "move", move)
    learn(store, teacher, images, pytest.fail)  # no epoch is trained again
    assert {path.name for path in store.run(teacher.id).iterdir()} == set(RUN_FILES)
    assert not store.work(teacher.id).exists()


def test_a_state_made_with_another_teacher_is_not_gone_on_with(copied, images):
    store, teacher, student = copied
    shutil.rmtree(store.run(student.id))

    def stop(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(store, student, images, stop, save_seconds=0)
    assert (store.work(student.id) / "state.pt").exists()
    weights = with_other_weights(store, teacher.id)
    said = []
    learn(store, student, images, said.append)
    assert "another teacher" in said[0] and sum(line.startswith("epoch") for line in said) == 2
    assert read_json(store.run(student.id) / "record.json")["teacher_weights"] == weights


# Attempts and failures


def test_a_run_stopped_before_its_first_save_says_where_it_goes_on_and_counts_the_attempt(copied, images):
    store, teacher, _ = copied
    shutil.rmtree(store.run(teacher.id))

    def stop(line):
        raise KeyboardInterrupt

    for saved, goes_on in ((30.0, 1), (0, 2)):
        with pytest.raises(KeyboardInterrupt):
            learn(store, teacher, images, stop, save_seconds=saved)
        state, detail = store.state(teacher.id)
        assert state == "stopped" and detail.startswith("epoch 1 of 2, test ")
        assert detail.endswith(f"; goes on in epoch {goes_on}")
    said = []
    learn(store, teacher, images, said.append)
    assert [line.split()[1] for line in said] == ["2/2"]
    assert read_json(store.run(teacher.id) / "record.json")["attempts"] == 3


def test_a_failure_after_training_leaves_its_reason(copied, capsys):
    """Logits beyond fp16: the loss of the training was finite."""
    store, teacher, _ = copied
    assert main(["data", "digits"]) == 0
    shutil.rmtree(store.run(teacher.id) / "eval")
    for checkpoint in CHECKPOINTS:
        path = store.run(teacher.id) / f"model.{checkpoint}.pt"
        model = load_tensors(path)
        model["model"]["fc.bias"] *= 1e30
        save_tensors(path, model)
        record = read_json(store.run(teacher.id) / "record.json")
        record["weights"][checkpoint] = weights_digest(model["model"])
        (store.run(teacher.id) / "record.json").write_text(to_json(record))
    capsys.readouterr()
    for _ in range(2):
        assert main(["evaluate", teacher.id, "--stage", "predictions", "--device", "cpu"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "beyond fp16" in line and "SOLVER.LR" in line
        state, detail = store.state(teacher.id)
        assert state == "failed" and "beyond fp16" in detail


def test_metrics_that_are_not_finite_leave_their_reason(store, capsys):
    run = runs(".")["NONE/s0"]
    path = predictions(store, run)
    with np.load(path) as archive:
        rewrite(path, logits=np.full_like(archive["logits"], np.inf))
    (path.parent / "metrics.json").unlink()
    assert main(["evaluate", run, "--stage", "metrics"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert store.state(run)[0] == "failed" and "not finite" in store.state(run)[1]
    assert main(["tables", "small"]) == 0
    assert "s0: " in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["train", "predict", "metrics"])
def test_a_job_that_died_before_it_began_has_its_last_words_for_a_reason(store, stage):
    run = runs(".")["NONE/s0"]
    missing = {"train": RUN_FILES, "predict": (), "metrics": ()}[stage]
    for path in [store.run(run) / name for name in missing]:
        path.unlink()
    for path in store.run(run).rglob("*.*"):
        if path.name == "metrics.json" or (stage != "metrics" and path.name == "predictions.npz"):
            path.unlink()
    assert store.state(run)[0] in ("missing", "trained")
    log = store.results / "logs/run" / f"{run}.log"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback (most recent call last):\nModuleNotFoundError: No module named 'torch'\n\n")
    state, detail = store.state(run)
    assert (
        state == "failed" and detail.startswith("ModuleNotFoundError: No module named 'torch'") and str(log) in detail
    )
    log.write_text(f"{run} -> {store.run(run)}\nepoch 1/2\n")
    assert store.state(run)[0] in ("missing", "trained")


def test_a_failure_ends_with_the_next_success(store):
    run = runs(".")["NONE/s0"]
    with pytest.raises(RuntimeError), claim(store.work(run)):
        raise RuntimeError("out of memory")
    assert json.loads((store.work(run) / "failure.json").read_text())["reason"] == "RuntimeError: out of memory"
    assert store.state(run) == ("done", ""), "what is done did not fail"
    assert main(["evaluate", run, "--stage", "metrics"]) == 0
    assert not store.work(run).exists()


def test_a_work_directory_of_somebody_else_is_left_alone(specify, images, tmp_path, monkeypatch, capsys):
    """`train --work .`: refused; and by whatever way, of the directory only what training wrote there goes."""
    monkeypatch.chdir(tmp_path)
    specification = specify()
    (tmp_path / "spec.json").write_text(to_json(specification.as_file()))
    assert main(["train", "--spec", "spec.json", "--out", "out", "--work", "."]) == 2
    assert "spec.json: not of a run in flight; choose another --work" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["spec.json"]
    train(specification, images, tmp_path / "out", tmp_path, tmp_path, device="cpu", report=lambda line: None)
    assert {path.name for path in tmp_path.iterdir()} == {"spec.json", "out"}
    assert torch.load(tmp_path / "out/model.last.pt", weights_only=True)["model"]


# Found by trying


@pytest.mark.parametrize("count", range(1, len(RUN_FILES)))
def test_a_training_again_killed_between_its_files_is_no_finished_run_and_planning_completes_it(store, tmp_path, count):
    """New weights beside the old record would be done, as far as the metrics say."""
    run = runs(".")["NONE/s0"]
    new = tmp_path / "new"
    shutil.copytree(store.run(run), new)
    for name in RUN_FILES[1:]:
        (new / name).write_bytes(b"new")
    for name in sorted(RUN_FILES, key=lambda name: name == "record.json")[:count]:
        shutil.move(new / name, store.run(run) / name)
    shutil.copytree(new, store.work(run) / "finished", ignore=shutil.ignore_patterns("eval"))
    assert store.state(run) == ("stopped", "trained; its files are on their way to their place")
    plan_suite("small")
    assert {(store.run(run) / name).read_bytes() for name in RUN_FILES[1:]} == {b"new"}
    assert not store.work(run).exists()


def test_metrics_of_other_predictions_of_the_same_weights_are_stale(store):
    """Another processor, or a GPU: the weights are the same, the logits are not."""
    ids = runs(".")
    path = predictions(store, ids["Teacher/s0"])
    with np.load(path) as archive:
        rewrite(path, logits=archive["logits"] + np.float16(0.5))
    assert store.stale(ids["Teacher/s0"]) == {("metrics", "last"): "metrics of other predictions"}
    assert set(store.stale(ids["KD/s0"]).values()) == {"metrics against other predictions of the teacher"}


def test_metrics_are_not_computed_of_predictions_of_other_weights(store, capsys):
    run = runs(".")["NONE/s0"]
    rewrite(predictions(store, run), weights_sha256="0" * 64)
    assert main(["evaluate", run, "--stage", "metrics"]) == 2
    assert "predictions of other weights" in capsys.readouterr().err
    assert main(["ls"]) == 0 and "50.00  stale: predictions of other weights" in capsys.readouterr().out


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "93.1", True, None, [1]], ids=str)
def test_a_metric_that_is_no_finite_number_is_none(store, capsys, value):
    path = store.evaluation(runs(".")["NONE/s0"], "last") / "metrics.json"
    content = read_json(path)
    content["metrics"][0]["value"] = value
    path.write_text(json.dumps(content))
    for command in (["tables", "small"], ["ls"], ["status", "small"]):
        assert main(command) == 2
        assert "not metrics of a run" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["target_rank", "first_classes"])
@pytest.mark.parametrize("change", [lambda a: -a - 1, lambda a: a + 10, lambda a: a[None], lambda a: a.astype(str)])
def test_ranks_that_are_none_are_refused(store, capsys, name, change):
    run = runs(".")["NONE/s0"]
    with np.load(predictions(store, run)) as archive:
        rewrite(predictions(store, run), **{name: change(archive[name])})
    assert main(["evaluate", run, "--stage", "metrics"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not readable predictions" in line


def test_no_flipped_byte_of_predictions_is_a_traceback(store, capsys):
    run = runs(".")["NONE/s0"]
    whole = predictions(store, run).read_bytes()
    draws = np.random.default_rng(0)
    for place in draws.integers(0, len(whole), 400):
        content = bytearray(whole)
        content[place] ^= 1 << int(draws.integers(8))
        predictions(store, run).write_bytes(bytes(content))
        assert LookingStore().state(run)[0] in ("done", "stale", "damaged", "failed")


@pytest.mark.parametrize("content", ["[]", "null", '{"attempts": "x"}', "{"])
def test_a_damaged_progress_stops_no_training(copied, images, content):
    store, teacher, _ = copied
    shutil.rmtree(store.run(teacher.id))
    store.work(teacher.id).mkdir(parents=True)
    (store.work(teacher.id) / "progress.json").write_text(content)
    learn(store, teacher, images)
    assert read_json(store.run(teacher.id) / "record.json")["attempts"] >= 1


def test_a_state_that_is_none_is_one_line(copied, images):
    store, teacher, _ = copied
    shutil.rmtree(store.run(teacher.id))
    store.work(teacher.id).mkdir(parents=True)
    save_tensors(store.work(teacher.id) / "state.pt", [1, 2])
    with pytest.raises(UserError, match="not the state of a run"):
        learn(store, teacher, images)


def test_a_job_that_cannot_make_its_folder_leaves_its_last_words(store, capsys):
    run = runs(".")["NONE/s0"]
    shutil.rmtree(store.run(run))
    (store.results / "work").write_text("in the way")
    assert (
        main(["train", "--spec", str(store.planned(run)), "--out", str(store.run(run)), "--work", str(store.work(run))])
        == 2
    )
    said = capsys.readouterr()
    log = store.results / "logs/run" / f"{run}.log"
    log.parent.mkdir(parents=True)
    log.write_text(said.out + said.err)
    state, detail = store.state(run)
    assert state == "failed" and "results/work" in detail


def test_metrics_name_the_predictions_that_were_read(store, monkeypatch):
    """Though others take their place at that moment."""
    ids, parsed = runs("."), format.parse
    teacher, student = ids["Teacher/s0"], ids["KD/s0"]
    with np.load(predictions(store, teacher)) as archive:
        others = np.roll(archive["logits"], 1, axis=1)

    def replaced(file, path):
        if path == predictions(store, teacher):
            path.rename(path.with_name("read.npz"))  # as writers leave to its readers the file that they take away
            shutil.copy(path.with_name("read.npz"), path)
            rewrite(path, logits=others)
        return parsed(file, path)

    monkeypatch.setattr(format, "parse", replaced)
    write_metrics(store, student, "last")
    assert store.stale(student)["metrics", "last"] == "metrics against other predictions of the teacher"


def killed_on_the_way(store, specification, images, monkeypatch):
    """A run whose files are finished, and in its work directory."""

    def killed(path, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store_module, "move", killed)
        learn(store, specification, images, again=True)


@pytest.mark.parametrize("again", [True, False])
def test_files_that_arrive_from_another_teacher_are_made_anew_when_asked(copied, images, monkeypatch, again):
    """Else they are brought to their place, and reported like any run of another realisation of its teacher."""
    store, teacher, student = copied
    before = read_json(store.run(student.id) / "record.json")["teacher_weights"]
    killed_on_the_way(store, student, images, monkeypatch)
    weights, said = with_other_weights(store, teacher.id), []
    learn(store, student, images, said.append, again=again)
    assert sum(line.startswith("epoch") for line in said) == 2 * again
    assert read_json(store.run(student.id) / "record.json")["teacher_weights"] == (weights if again else before)
    assert bool(store.other_realisation(student.id)) is not again and not store.work(student.id).exists()


def test_files_that_arrive_are_those_of_the_run(copied, images, monkeypatch, capsys):
    store, teacher, student = copied
    assert main(["data", "digits"]) == 0
    killed_on_the_way(store, teacher, images, monkeypatch)
    (store.results / "student.json").write_text(to_json(student.as_file()))
    words = ["--spec", "results/student.json", "--out", "elsewhere", "--work", str(store.work(teacher.id))]
    capsys.readouterr()
    assert main(["train", *words, "--device", "cpu"]) == 2
    assert teacher.id in capsys.readouterr().err
    assert not (store.results.parent / "elsewhere").exists()
    assert (store.work(teacher.id) / "finished/record.json").exists()


def test_predictions_that_cannot_be_made_again_are_not_tried(store, capsys):
    run = runs(".")["NONE/s0"]
    rewrite(predictions(store, run), weights_sha256="0" * 64)
    for path in (*store.run(run).rglob("metrics.json"), *store.run(run).glob("model.*.pt")):
        path.unlink()
    capsys.readouterr()
    assert main(["complete", run]) == 2
    assert "predictions of other weights than record.json names" in capsys.readouterr().err

"""What history.csv holds of losses and observations, and what cannot be a column of it."""

import contextlib
import csv
import re

import pytest
import torch
import torch.nn.functional as F
from standins import learn, learner_of, quiet

from distillbench.engine.learner import Learner
from distillbench.engine.loop import OBSERVED_EVERY
from distillbench.engine.run import train
from distillbench.engine.sums import Sums, averages
from distillbench.engine.weights import load_tensors
from distillbench.errors import RunFailed, UserError
from distillbench.methods.base import LogitMethod
from distillbench.methods.none import Vanilla
from distillbench.tasks.classification import training as classification

STEP = Learner.step


def test_a_loss_that_is_not_finite_ends_the_run_before_anything_is_saved(specify, images, tmp_path):
    with pytest.raises(RunFailed, match="epoch 1"):
        learn(specify(**{"SOLVER.LR": 1e30}), images, tmp_path, save_seconds=0)
    assert not (tmp_path / "out").exists()
    assert "epoch 1" in (tmp_path / "work" / "failure.json").read_text()
    if (tmp_path / "work" / "state.pt").exists():  # of the first step, whose loss was finite
        sums = load_tensors(tmp_path / "work" / "state.pt")["progress"]["sums"]
        assert all(stack.isfinite().all() for _, stack in sums)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_becomes_infinite_or_no_number_ends_the_run(specify, images, tmp_path, monkeypatch, factor):
    """In the second epoch, and without a save in between."""
    losses, calls = Vanilla.losses, []

    def spoilt(self, *arguments):
        calls.append(arguments)
        return {"ce": losses(self, *arguments)["ce"] * (factor if len(calls) > 3 else 1.0)}

    monkeypatch.setattr(Vanilla, "losses", spoilt)
    with pytest.raises(RunFailed, match="epoch 2"):
        learn(specify(), images, tmp_path)
    assert not (tmp_path / "out").exists()


def step_with(specify, images, losses=None, observed=None, steps=1):
    """Steps of a method that returns, besides its own loss, these losses and observations: functions of the step."""
    learner, step = learner_of(specify(), 300), 0
    own = learner.method.losses
    learner.method.losses = lambda *arguments: {**own(*arguments), **(losses(step) if losses else {})}
    learner.method.observations = lambda *arguments: observed(step) if observed else {}
    learner.begin(1, 0.05)
    for step in range(steps):  # noqa: B007 - the functions above read it
        learner.step(8)


def test_an_observation_with_the_name_of_a_metric_is_refused(specify, images):
    with pytest.raises(UserError, match="NONE: an observation is called images"):
        step_with(specify, images, observed=lambda step: {"images": torch.ones(1)})


@pytest.mark.parametrize(
    "observed, says",
    [
        ({"loss": torch.ones(())}, "called loss; its column train_loss of history.csv is that of a loss"),
        ({"loss": torch.ones(2)}, "called loss; its column train_loss_0"),
        ({"loss_ce": torch.ones(())}, "called loss_ce; its column train_loss_ce"),
        ({"loss_extra": torch.ones(())}, "called loss_extra; its column train_loss_extra"),
        ({"top5": torch.ones(())}, "called top5; its column train_top5 of history.csv is that of a metric"),
        ({"a": torch.ones(3), "a_1": torch.ones(())}, "called a_1; its column train_a_1 of history.csv is that of a;"),
        ({"a_1": torch.ones(()), "a": torch.ones(3)}, "called a; its column train_a_1 of history.csv is that of a_1;"),
        ({"a": torch.ones(2, 2)}, "observation 'a' must be a 1-d or 0-d tensor"),
        ({"a": "text"}, "observation 'a' must be"),
        ({"a": [1.0, 2.0]}, "observation 'a' must be"),
        ({3: torch.ones(1)}, "observation 3 must be"),
        ({"": torch.ones(1)}, "observation '' must be"),
        (None, "`losses` and `observations` must return dicts"),
    ],
)
def test_observations_that_take_a_column_of_another_are_refused_in_the_first_step(specify, images, observed, says):
    with pytest.raises(UserError, match=f"^NONE: .*{re.escape(says)}") as caught:
        step_with(specify, images, observed=lambda step: observed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "losses",
    [{"kd": 1.0}, {"kd": torch.ones(2)}, {3: torch.ones(())}],
    ids=["a number", "not a mean", "not a text"],
)
def test_a_loss_that_is_no_named_scalar_is_refused_in_the_first_step(specify, images, losses):
    with pytest.raises(UserError, match=rf"^NONE: the loss {next(iter(losses))!r} must be a 0-d tensor"):
        step_with(specify, images, losses=lambda step: losses)


@pytest.mark.parametrize("lengths", [(3, 4), (3, None), (None, 3)], ids=str)
def test_an_observation_that_changes_its_length_is_refused_where_it_does(specify, images, lengths):
    def observed(step):
        return {"a": torch.ones(() if lengths[step] is None else lengths[step])}

    with pytest.raises(UserError, match=r"NONE: the observation a has .* and had .* before; return sums"):
        step_with(specify, images, observed=observed, steps=2)


def test_an_observation_that_takes_an_earlier_ones_column_later_is_refused(specify, images):
    with pytest.raises(UserError, match=r"called a_0; its column train_a_0 of history.csv is that of a;"):
        step_with(specify, images, observed=lambda step: [{"a": torch.ones(2)}, {"a_0": torch.ones(())}][step], steps=2)


def test_names_that_only_look_alike_are_columns_of_their_own(specify, images):
    observed = {"a": torch.ones(2), "a_0": torch.ones(2), "lossless": torch.ones(()), "epoch": torch.ones(()), "n": 1}
    step_with(specify, images, observed=lambda step: observed, steps=2)


def test_a_schedule_that_changes_its_names_is_refused(specify):
    learner = learner_of(specify(), 300)
    learner.method.schedule = lambda epoch: {"ramp": 1.0} if epoch > 1 else {}
    learner.begin(1, 0.1)
    with pytest.raises(UserError, match=r"NONE: schedule\(2\) gives ramp, schedule\(1\) nothing; give the same names"):
        learner.begin(2, 0.1)


PRESENT = {  # in which epochs, and batches of how many images, the other loss and the observation are there
    "later": lambda epoch, count: epoch > 1,
    "no longer": lambda epoch, count: epoch == 1,
    "in the last batch": lambda epoch, count: count == 44,
    "never": lambda epoch, count: False,
}


class Switched:
    """What `Vanilla` gets to be: its loss, half of it once more where `there` says so, and an observation beside it."""

    def __init__(self, there):
        self.there, self.epoch, self.step, self.expected = there, 0, 0, {}

    def install(self, monkeypatch):
        mine = self

        def schedule(method, epoch):
            mine.epoch = epoch
            return {}

        def losses(method, student, teacher, batch, schedule):
            ce, count = F.cross_entropy(student.logits, batch.target), len(batch.target)
            sums = mine.expected.setdefault(mine.epoch, {"ce": 0.0, "half": 0.0, "here": 0, "observed": 0, "seen": 0})
            observed = count if mine.step % OBSERVED_EVERY == 0 else 0
            sums["observed"] += observed
            mine.step += 1
            sums["ce"] += ce.item() * count
            if not mine.there(mine.epoch, count):
                return {"ce": ce}
            sums["half"] += ce.item() / 2 * count
            sums["here"] += count
            sums["seen"] += observed
            return {"ce": ce, "half": ce / 2}

        def observations(method, student, teacher, batch, losses):
            return {"lossless": torch.full((), len(batch.target))} if "half" in losses else {}

        for function in (schedule, losses, observations):
            monkeypatch.setattr(Vanilla, function.__name__, function)


def rows_of(out):
    with open(out / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("there", PRESENT)
def test_a_loss_may_be_there_in_some_epochs_or_batches_only(specify, images, tmp_path, monkeypatch, there):
    """Columns are the union, empty in an epoch without; averages are over the images of the epoch, of what was observed
    over those of the first step of a run and of every fifth after it.
    """
    method = Switched(PRESENT[there])
    method.install(monkeypatch)
    logged = []
    rows = rows_of(learn(specify(), images, tmp_path, logger=lambda: contextlib.nullcontext(logged.append)))
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    for row, line in zip(rows, logged, strict=True):
        sums = method.expected[int(row["epoch"])]
        assert float(row["train_loss_ce"]) == pytest.approx(sums["ce"] / 300)
        assert float(row["train_loss"]) == pytest.approx((sums["ce"] + sums["half"]) / 300), "observations add nothing"
        averages = (
            ("loss_half", sums["half"], 300, sums["here"]),
            ("lossless", sums["seen"], sums["observed"], sums["seen"]),
        )
        for name, value, images_seen, here in averages:
            if here:
                assert float(row[f"train_{name}"]) == pytest.approx(value / images_seen)
            else:
                assert not row.get(f"train_{name}")
        assert {name: value for name, value in row.items() if value} == {n: str(v) for n, v in line.items()}


def test_a_loss_that_comes_later_survives_a_stop_in_the_middle_of_an_epoch(specify, images, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder, stops in ((whole, ()), (stopped, (2, 5))):
        method = Switched(lambda epoch, count: epoch > 1)
        method.install(monkeypatch)
        for stop in (*stops, None):
            steps = 0

            def step(learner, size, observing, stop=stop):
                nonlocal steps
                steps += 1
                if steps == stop:
                    raise KeyboardInterrupt
                return STEP(learner, size, observing)

            monkeypatch.setattr(Learner, "step", step)
            with contextlib.suppress(KeyboardInterrupt):
                learn(specify(SOLVER__EPOCHS=3), images, folder, save_seconds=0)
    assert (whole / "out/history.csv").read_bytes() == (stopped / "out/history.csv").read_bytes()
    assert [bool(row["train_loss_half"]) for row in rows_of(stopped / "out")] == [False, True, True]


def test_observations_reach_the_history_and_change_nothing(specify, images, tmp_path, monkeypatch):
    teacher = specify(seed=7)
    learn_at = tmp_path / teacher.id
    train(teacher, images, learn_at, tmp_path / "w", tmp_path, device="cpu", report=quiet)
    keys = {"DISTILLER.TYPE": "DKD", "GKD": {}}
    specification = specify(teacher={"kind": "run", "id": teacher.id, "checkpoint": "last"}, **keys)
    train(specification, images, tmp_path / "a", tmp_path / "wa", tmp_path, device="cpu", report=quiet)
    with open(tmp_path / "a" / "history.csv") as file:
        first = next(csv.DictReader(file))
    assert sum(float(first[f"train_confidence_{i}"]) for i in range(20)) == pytest.approx(1)
    assert sum(float(first[f"train_factor_{i}"]) for i in range(20)) == pytest.approx(1, abs=0.1)
    assert {f"train_kd_gradient_{i}" for i in range(6)} <= first.keys()
    monkeypatch.setattr(LogitMethod, "observations", lambda *arguments: {})
    train(specification, images, tmp_path / "b", tmp_path / "wb", tmp_path, device="cpu", report=quiet)
    assert (tmp_path / "a/model.last.pt").read_bytes() == (tmp_path / "b/model.last.pt").read_bytes()


@pytest.mark.parametrize(
    "losses, says",
    [
        ({"ce": torch.tensor(1.0)}, "no loss depends on what is trained"),
        ({"ce": torch.tensor(1j, requires_grad=True)}, "must be a real floating-point number"),
    ],
    ids=["detached", "complex"],
)
def test_losses_that_train_nothing_are_refused_in_the_first_step(specify, images, losses, says):
    with pytest.raises(UserError, match=says):
        step_with(specify, images, losses=lambda step: losses)


def test_what_is_observed_keeps_no_graph(specify, images):
    """A method may forget to detach: the sums of an epoch would hold every step's graph."""
    sums, value = Sums("cpu"), torch.ones(2, requires_grad=True) * 2
    sums.add({"seen": value})
    assert not sums.totals()["seen"].requires_grad


def test_sums_keep_what_single_precision_loses():
    sums = Sums("cpu")
    for value in (1e8, 1.0):
        sums.add({"seen": torch.tensor(value)})
    assert sums.totals()["seen"].item() == 100_000_001


def test_sums_go_on_from_a_state_in_which_every_step_was_observed():
    """As states were before the method observed every fifth step only, and before sums were stacked."""
    sums = Sums("cpu")
    sums.load_state_dict({"loss_ce": torch.tensor(6.0), "images": torch.tensor(4.0), "seen": torch.tensor([8.0, 2.0])})
    sums.add({"loss_ce": torch.tensor(2.0), "images": 4, "images_observed": 4, "seen": torch.tensor([0.0, 2.0])})
    assert averages(classification, sums) == {"loss_ce": 1.0, "seen_0": 1.0, "seen_1": 0.5}


def test_sums_go_on_from_a_state_of_the_end_of_an_epoch():
    """Which has none, in either form."""
    for state in ({}, []):
        sums = Sums("cpu")
        sums.load_state_dict(state)
        assert sums.totals() == {}

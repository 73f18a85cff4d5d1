"""The engine: its arithmetic against a plain loop, exact resumption, and what must never happen inside a step."""

import ast
import contextlib
import copy
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import feed_of
from torchvision.transforms import functional as transforms

from distillbench.checks import method as contract
from distillbench.config import components, method_files
from distillbench.config.specification import Specification
from distillbench.data.augment import CropFlip
from distillbench.engine import run as engine_run
from distillbench.engine.device import prepare_device
from distillbench.engine.feed import Feed, Split, epoch_plan, generated_feed
from distillbench.engine.flight import Flight, Progress, finish
from distillbench.engine.learner import Learner
from distillbench.engine.loop import learning_rate
from distillbench.engine.processor import processor
from distillbench.engine.record import git_state
from distillbench.engine.run import train
from distillbench.engine.streams import generator, initialisation
from distillbench.engine.sums import Sums
from distillbench.engine.weights import load_run, load_teacher, load_tensors, save_tensors, weights_digest
from distillbench.errors import RunFailed, UserError
from distillbench.files import read_json, to_json, write_atomically
from distillbench.methods.base import Batch, LogitMethod, Output
from distillbench.methods.none import Vanilla
from distillbench.models import build_network, network_cost
from distillbench.store.layout import FINISHED, RUN_FILES
from distillbench.store.place import bring
from distillbench.trainers import base, dot
from distillbench.transforms.gkd import GradientScaling

TEACHER = {"kind": "run", "id": "digits/resnet8/none/s0-000000000000", "checkpoint": "last"}
ROOT = Path(__file__).resolve().parents[1]
DIGITS = components.datasets()["digits"]
STEP = Learner.step


def learner_of(specification, num_images, teacher=None):
    """On generated images."""
    return Learner(specification, generated_feed(specification, num_images), teacher)


def quiet(_line):
    pass


def learn(specification, images, tmp_path, **options):
    out = tmp_path / "out"
    train(specification, images, out, tmp_path / "work", tmp_path, device="cpu", report=quiet, **options)
    return out


@pytest.mark.parametrize("device", ["cuda:99", "meta", "bogus", "cpu:x"])
def test_a_device_that_is_not_here_is_one_line(specify, device):
    with pytest.raises(UserError, match=f"--device {device}: ") as error:
        prepare_device(specify(), device)
    assert "\n" not in str(error.value)


def test_fifty_float64_steps_equal_a_plain_independent_loop(specify, images):
    """Network, losses, GKD, optimizer, schedule, batches and BN statistics together."""
    keys = {
        "DISTILLER.TYPE": "KD",
        "KD.TEMPERATURE": 4,
        "KD.LOSS.CE_WEIGHT": 1,
        "KD.LOSS.KD_WEIGHT": 0.5,
        "KD.WARMUP": 4,
    }
    keys |= {"GKD": {}, "SOLVER.PRECISION": "fp64", "SOLVER.BATCH_SIZE": 32, "SOLVER.LR_DECAY_STAGES": [2, 4]}
    specification = specify(teacher=TEACHER, **keys)
    with initialisation(7, "teacher"):
        teacher = build_network("resnet8", "digits").eval().requires_grad_(False)
    learner = Learner(specification, feed_of(specification, images), teacher)
    with initialisation(0, "student"):
        student = build_network("resnet8", "digits").double()
    pixels = np.pad(images.train_images, ((0, 0), (4, 4), (4, 4), (0, 0))).astype(np.float64) / 255
    velocity = {name: torch.zeros_like(p) for name, p in student.named_parameters()}
    student.train()
    for epoch in range(1, 6):  # five epochs of ten batches, the last one of 12 images
        plan = epoch_plan(0, epoch, 300, 1, CropFlip(4, flip=False))
        learner.begin(epoch, learning_rate(specification["schedule"], epoch))
        lr = 0.05 * 0.1 ** ((epoch > 2) + (epoch > 4))
        for start in range(0, 300, 32):
            learner.step(min(32, 300 - start))
            rows = plan["order"][start : start + 32].tolist()
            tops, lefts = (plan[name][0, start : start + 32].tolist() for name in ("row", "column"))
            crops = [pixels[i, t : t + 16, s : s + 16] for i, t, s in zip(rows, tops, lefts, strict=True)]
            x = torch.tensor((np.stack(crops) - DIGITS["mean"]) / DIGITS["std"]).permute(0, 3, 1, 2)
            y = torch.tensor(images.train_labels[rows])
            z, soft = student(x)[0], teacher(x)[0] / 4
            confidence = soft.softmax(1).max(1).values
            weight = 2 * torch.sigmoid(0.6 * (confidence - confidence.mean()))
            z.retain_grad()
            kl = (soft.softmax(1) * (soft.log_softmax(1) - (z / 4).log_softmax(1))).sum(1).mean() * 16
            gradient_kd = torch.autograd.grad(kl, z, retain_graph=True)[0]
            scale = weight[:, None].repeat(1, 10)
            scale[torch.arange(len(y)), y] = 1
            gradient_ce = torch.autograd.grad(F.cross_entropy(z, y), z, retain_graph=True)[0]
            total = gradient_ce + 0.5 * min(epoch / 4, 1) * gradient_kd * scale
            gradients = torch.autograd.grad(z, list(student.parameters()), total)
            with torch.no_grad():
                for (name, p), g in zip(student.named_parameters(), gradients, strict=True):
                    velocity[name] = 0.9 * velocity[name] + g + 1e-4 * p
                    p -= lr * velocity[name]
    for name, tensor in student.state_dict().items():
        torch.testing.assert_close(learner.student.state_dict()[name], tensor, rtol=1e-9, atol=1e-11, msg=name)


def test_gradient_scaling_leaves_values_and_the_targets_gradient_alone():
    z = torch.randn(6, 10, generator=generator(0, "a")).requires_grad_()
    teacher, target = 3 * torch.randn(6, 10, generator=generator(0, "b")), torch.arange(6)
    parameters = {name: key.default for name, key in GradientScaling.keys.items()}
    batch = Batch((), target, target)
    scaled, unchanged = GradientScaling(parameters, temperature=4.0)(z, teacher, batch)
    assert torch.equal(scaled, z) and unchanged is teacher
    (gradient,) = torch.autograd.grad(scaled.sum(), z)
    confidence = (teacher / 4).softmax(1).max(1).values
    expected = (2 * torch.sigmoid(0.6 * (confidence - confidence.mean())))[:, None].repeat(1, 10)
    expected[torch.arange(6), target] = 1
    torch.testing.assert_close(gradient, expected)
    parameters |= {"TARGET": "teacher", "CENTRE": 0.5, "TEMPERATURE": 1.0, "K": 2.0, "SCALE": 3.0}
    factors = GradientScaling(parameters, temperature=4.0).factors(teacher, batch)
    assert torch.equal(factors.gather(1, teacher.argmax(1, keepdim=True)), torch.ones(6, 1))
    other = 3 * torch.sigmoid(2 * (teacher.softmax(1).max(1).values - 0.5))
    torch.testing.assert_close(
        factors.min(1).values.maximum(factors.sum(1) - 1 - 8 * other), other, rtol=1e-5, atol=1e-5
    )


def scaled_gradient(parameters, teacher, target):
    """The factors that a gradient of ones really gets."""
    defaults = {name: key.default for name, key in GradientScaling.keys.items()}
    z = torch.zeros_like(teacher).requires_grad_()
    scaled, _ = GradientScaling({**defaults, **parameters}, temperature=4.0)(z, teacher, Batch((), target, target))
    return torch.autograd.grad(scaled.sum(), z)[0]


@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_the_controls_of_gkd_change_one_thing_each(scale):
    teacher = 3 * torch.randn(8, 10, dtype=torch.float64, generator=generator(0, "b"))
    target = torch.arange(8)
    kept = F.one_hot(target, 10).bool()
    plain, shuffled, inverted, mean, everywhere = (
        scaled_gradient({"SCALE": scale, **control}, teacher, target)
        for control in ({}, *({"FACTORS": f} for f in ("shuffled", "inverted", "mean")), {"TARGET": "none"})
    )
    for factors in (plain, shuffled, inverted, mean):
        assert torch.equal(factors[kept], torch.ones(8, dtype=torch.float64))
        assert all(row[~k].unique().numel() == 1 for row, k in zip(factors, kept, strict=True))
    s = plain[~kept].view(8, 9)[:, 0]
    torch.testing.assert_close(shuffled[~kept].view(8, 9)[:, 0], s.roll(1))  # the same factors, none on its own sample
    assert len(s.unique()) == 8
    torch.testing.assert_close(inverted[~kept].view(8, 9)[:, 0], scale - s)
    torch.testing.assert_close(mean[~kept], s.mean().expand(72))
    torch.testing.assert_close(everywhere, s[:, None].expand(8, 10))


def test_a_specification_from_before_a_key_existed_is_trained_as_it_was_then(specify):
    specification = specify(teacher=TEACHER, **{"DISTILLER.TYPE": "KD", "GKD.K": 0.5})
    older = Specification(copy.deepcopy(specification.data))
    del older.data["gradient_scaling"]["parameters"]["FACTORS"]
    assert older.id == specification.id
    assert learner_of(older, 300, build_network("resnet8", "digits")).method.transforms[0].kind == "confidence"
    newer = specify(teacher=TEACHER, **{"DISTILLER.TYPE": "KD", "GKD.FACTORS": "inverted"})
    assert learner_of(newer, 300, build_network("resnet8", "digits")).method.transforms[0].kind == "inverted"


def test_crops_and_flips_are_torchvisions(specify, images):
    split = Split.put(*images.training, specify(), "cpu")
    feed = Feed(split, {"count": 2, "augmentation": {"kind": "crop_flip", "crop_padding": 4, "flip": True}}, seed=3)
    feed.begin(1, position=290)
    batch, plan = feed.batch(10), feed.plan
    assert len(batch.views) == 2 and 0 < plan["flip"].float().mean() < 1
    assert batch.index.tolist() == plan["order"][290:].tolist() and feed.position.item() == 300
    drawn = zip(*(plan[name] for name in ("row", "column", "flip")), strict=True)
    for view, (rows, columns, flips) in zip(batch.views, drawn, strict=True):
        for k in range(10):
            image = transforms.to_tensor(images.train_images[batch.index[k]])
            image = transforms.crop(transforms.pad(image, 4), int(rows[290 + k]), int(columns[290 + k]), 16, 16)
            image = transforms.hflip(image) if flips[290 + k] else image
            torch.testing.assert_close(view[k], transforms.normalize(image, DIGITS["mean"], DIGITS["std"]))


def test_order_and_augmentation_are_functions_of_seed_and_epoch():
    one, again, other = (epoch_plan(s, 5, 300, 1, CropFlip(4, flip=False)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.values(), again.values(), strict=True))
    assert not any(torch.equal(one[name], other[name]) for name in ("order", "row", "column"))
    assert sorted(one["order"].tolist()) == list(range(300)) and set(one["row"].flatten().tolist()) == set(range(9))


OWN = Path(__file__).parent / "fixtures" / "own_method.py"  # features, an own module, two views, a schedule


@pytest.fixture
def own_method():
    method_files.use([str(OWN)])
    yield
    method_files.use([])


@pytest.mark.parametrize("rule", contract.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", [*components.methods(), "FeaturesAndModules"])
def test_every_method_keeps_the_contract_with_gkd_and_every_trainer(name, rule, own_method):
    for keys in contract.combinations(name).values():
        rule(keys)


@pytest.mark.parametrize("control", components.transforms()["GKD"]["keys"]["FACTORS"].choices)
@pytest.mark.parametrize("target", components.transforms()["GKD"]["keys"]["TARGET"].choices)
def test_every_control_of_gkd_keeps_the_contract(control, target):
    keys = {"DISTILLER.TYPE": "KD", "GKD.FACTORS": control, "GKD.TARGET": target}
    for rule in (contract.gives_finite_losses, contract.waits_for_no_device, contract.is_a_function_of_the_seed):
        rule(keys)


def test_the_method_does_not_change_what_the_student_starts_from(specify):
    with_method = learner_of(
        specify(teacher=TEACHER, **{"DISTILLER.TYPE": "KD"}), 300, build_network("resnet8", "digits")
    )
    assert weights_digest(with_method.student.state_dict()) == weights_digest(
        learner_of(specify(), 300).student.state_dict()
    )
    assert weights_digest(learner_of(specify(seed=1), 300).student.state_dict()) != weights_digest(
        with_method.student.state_dict()
    )


def test_a_logit_method_must_say_what_its_loss_is():
    with pytest.raises(TypeError, match="distillation_loss"):
        LogitMethod({}, None)


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
    ("save", "where"),
    [(2, "within"), (4, "boundary"), (5, "during")],
    ids=["within an epoch", "at an epoch's end", "during a save"],
)
def test_a_killed_run_resumes_to_bit_identical_weights_and_history(specify, tmp_path, save, where):
    """Three batches and the end of the epoch save a state each: the second is within, the fourth at the end."""
    specification = specify()
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


def test_a_loss_that_is_not_finite_ends_the_run_before_anything_is_saved(specify, images, tmp_path):
    with pytest.raises(RunFailed, match="epoch 1"):
        learn(specify(**{"SOLVER.LR": 1e30}), images, tmp_path, save_seconds=0)
    assert not (tmp_path / "out").exists()
    assert "epoch 1" in (tmp_path / "work" / "failure.json").read_text()
    if (tmp_path / "work" / "state.pt").exists():  # of the first step, whose loss was finite
        assert all(v.isfinite() for v in load_tensors(tmp_path / "work" / "state.pt")["progress"]["sums"].values())


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


def test_a_missing_teacher_is_one_clear_line(specify, images, tmp_path):
    with pytest.raises(UserError, match="no such file") as error:
        learn(specify(teacher=TEACHER, **{"DISTILLER.TYPE": "KD"}), images, tmp_path)
    assert "\n" not in str(error.value)


def test_a_pickle_is_not_executed(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"model": Harmful()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="not a readable weights file"):
        load_tensors(tmp_path / "model.pt")
    assert not (tmp_path / "executed").exists()


LOWERED = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}


def test_a_record_names_the_processor_and_the_instructions_in_effect(tmp_path):
    """The environment lowers both, and what the process prints after asking is left as it was."""
    found = []
    for lowered in ({}, LOWERED):
        environment = {name: value for name, value in os.environ.items() if name not in LOWERED} | lowered
        command = [sys.executable, ROOT / "tools/one_step.py"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        named, weights = done.stdout.splitlines()
        assert re.fullmatch("[0-9a-f]{64}", weights)  # whether they differ is the machine's affair
        found.append(ast.literal_eval(named))
    whole, least = found
    assert whole["model"] == least["model"] and whole["model"]
    assert least["torch"] == "DEFAULT" and whole["torch"]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "sse4_1" in cpuinfo.read_text():
        assert "SSE4.1" in least["onednn"] and whole["onednn"]
        assert (whole == least) == (whole["torch"] == "DEFAULT" and "SSE4.1" in whole["onednn"])


@pytest.mark.parametrize("broken", [(torch.cpu, "get_capabilities"), (torch.backends.mkldnn, "verbose"), (os, "dup")])
def test_a_processor_that_does_not_say_is_recorded_all_the_same(monkeypatch, broken):
    def fails(*_):
        raise {"get_capabilities": AttributeError, "verbose": RuntimeError, "dup": OSError}[broken[1]]("not here")

    processor.cache_clear()
    monkeypatch.setattr(*broken, fails)
    found = processor()
    processor.cache_clear()
    assert found.keys() == {"model", "torch", "onednn"} and found["model"]
    assert (found["onednn"] is None) or broken[1] == "get_capabilities"


def test_a_finished_run_leaves_its_files_and_nothing_in_flight(specify, images, tmp_path):
    out = learn(specify(), images, tmp_path)
    assert {p.name for p in out.iterdir()} == {
        "spec.json",
        "record.json",
        "history.csv",
        "model.best.pt",
        "model.last.pt",
    }
    assert not (tmp_path / "work").exists()
    lines = (out / "history.csv").read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith("epoch,lr,train_loss,train_loss_ce,train_top1")


def test_an_output_holds_the_published_features():
    for name in components.networks("digits"):
        with torch.device("meta"):
            output = Output(*build_network(name, "digits")(torch.empty(2, 3, 32, 32)))
        assert output.logits.shape == (2, 10) and set(output.features) == {
            "feats",
            "preact_feats",
            "pooled_feat",
        }


def test_the_cost_of_a_network_is_what_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    for name in components.networks("digits"):
        network = build_network(name, "cifar100").eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 3, 32, 32))
        parameters = sum(parameter.numel() for parameter in network.parameters())
        assert network_cost(network, 32) == (parameters, counter.get_total_flops() // 2), name


@pytest.mark.parametrize("temperature", [4, 1])
def test_what_a_logit_method_observes_is_the_gradient_of_its_weighted_loss(specify, images, temperature):
    keys = {"DISTILLER.TYPE": "KD", "KD.LOSS.KD_WEIGHT": 2, "KD.WARMUP": 4, "SOLVER.PRECISION": "fp64"}
    keys["GKD.TEMPERATURE"] = temperature
    specification = specify(teacher=TEACHER, **keys)
    learner = Learner(specification, feed_of(specification, images), build_network("resnet8", "digits"))
    learner.begin(1, 0.05)
    batch = learner.feed.batch(40)
    (students,), (teachers,) = (network(batch) for network in learner.callables)
    z, soft, y = students.logits.detach().requires_grad_(), teachers.logits / 4, batch.target
    loss = 2 * 0.25 * 16 * (soft.softmax(1) * (soft.log_softmax(1) - (z / 4).log_softmax(1))).sum(1)  # of each sample
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    confidence = (teachers.logits / temperature).softmax(1).max(1).values
    factor = 2 * torch.sigmoid(0.6 * (confidence - confidence.mean()))
    signed, counts, factors = torch.zeros(6).double(), [0] * 20, [0.0] * 20
    for n in range(40):
        ranked = [c for c in teachers.logits[n].argsort(descending=True).tolist() if c != y[n]][:5]
        signed += torch.stack([gradient[n, y[n]], *(gradient[n, c] * factor[n] for c in ranked)])
        counts[int(confidence[n] * 20)] += 1
        factors[int(confidence[n] * 20)] += factor[n].item()
    losses = learner.method.losses(students, teachers, batch, learner.schedule)
    observed = learner.method.observations(students, teachers, batch, losses)
    torch.testing.assert_close(observed["kd_gradient"], signed, rtol=1e-9, atol=1e-12)
    assert (observed["kd_gradient_abs"] >= observed["kd_gradient"].abs()).all()
    assert observed["confidence"].tolist() == counts and observed["factor"].tolist() == pytest.approx(factors)


def test_every_sample_has_a_confidence_also_one_that_the_teacher_is_sure_of(specify):
    keys = {"DISTILLER.TYPE": "KD", "KD.WARMUP": 0}
    method = learner_of(specify(teacher=TEACHER, **keys), 300, build_network("resnet8", "digits")).method
    z, target = torch.randn(8, 10, generator=generator(0, "a")).requires_grad_(), torch.arange(8)
    teacher = Output(1e4 * F.one_hot(target, 10).float(), {})  # softened, the largest probability is 1
    batch = Batch((), target, target)
    losses = method.losses(Output(z, {}), teacher, batch, {"warmup": 1.0})
    confidence = method.observations(Output(z, {}), teacher, batch, losses)["confidence"]
    assert confidence.tolist() == [0] * 19 + [8]


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
        self.there, self.epoch, self.expected = there, 0, {}

    def install(self, monkeypatch):
        mine = self

        def schedule(method, epoch):
            mine.epoch = epoch
            return {}

        def losses(method, student, teacher, batch, schedule):
            ce, count = F.cross_entropy(student.logits, batch.target), len(batch.target)
            sums = mine.expected.setdefault(mine.epoch, {"ce": 0.0, "half": 0.0, "here": 0})
            sums["ce"] += ce.item() * count
            if not mine.there(mine.epoch, count):
                return {"ce": ce}
            sums["half"] += ce.item() / 2 * count
            sums["here"] += count
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
    """Columns are the union, empty in an epoch without; averages are over all images of the epoch."""
    method = Switched(PRESENT[there])
    method.install(monkeypatch)
    logged = []
    rows = rows_of(learn(specify(), images, tmp_path, logger=lambda: contextlib.nullcontext(logged.append)))
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    for row, line in zip(rows, logged, strict=True):
        sums = method.expected[int(row["epoch"])]
        assert float(row["train_loss_ce"]) == pytest.approx(sums["ce"] / 300)
        assert float(row["train_loss"]) == pytest.approx((sums["ce"] + sums["half"]) / 300), "observations add nothing"
        for name, value in (("loss_half", sums["half"]), ("lossless", sums["here"])):
            if sums["here"]:
                assert float(row[f"train_{name}"]) == pytest.approx(value / 300)
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

            def step(learner, size, stop=stop):
                nonlocal steps
                steps += 1
                if steps == stop:
                    raise KeyboardInterrupt
                return STEP(learner, size)

            monkeypatch.setattr(Learner, "step", step)
            with contextlib.suppress(KeyboardInterrupt):
                learn(specify(SOLVER__EPOCHS=3), images, folder, save_seconds=0)
    assert (whole / "out/history.csv").read_bytes() == (stopped / "out/history.csv").read_bytes()
    assert [bool(row["train_loss_half"]) for row in rows_of(stopped / "out")] == [False, True, True]


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


def test_the_weights_that_dot_implies_are_those_of_its_control():
    """Under constant gradients, after many steps, a step of DOT is a step of SGD with the documented weights."""
    g, h, rate = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 3.0], dtype=torch.float64), 1e-3
    schedule = {"LR": rate, "MOMENTUM": 0.9, "WEIGHT_DECAY": 0.0}
    moved = {}
    for trainer, (task, kd) in {dot.Trainer: (1, 1), base.Trainer: (0.1 / 0.175, 4.0)}.items():
        p = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        learner = trainer([p], schedule, {"DELTA": 0.075})
        for _ in range(2000):
            before = p.detach().clone()
            learner.update({"ce": task * (p * g).sum(), "kd": kd * (p * h).sum()})
        moved[trainer] = p.detach() - before
    torch.testing.assert_close(moved[dot.Trainer], moved[base.Trainer], rtol=1e-9, atol=0)


@pytest.mark.parametrize("precision", ["fp64", "fp32", "tf32"])
def test_threads_and_arithmetic_are_those_of_the_specification(specify, precision):
    backends = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = torch.get_num_threads(), *(backend.fp32_precision for backend in backends)
    specification = specify(**{"SOLVER.THREADS": 2, "SOLVER.PRECISION": precision})
    try:
        assert prepare_device(specification, "cpu") == torch.device("cpu")
        assert torch.get_num_threads() == 2
        assert {backend.fp32_precision for backend in backends} == {"tf32" if precision == "tf32" else "ieee"}
    finally:
        torch.set_num_threads(before[0])
        for backend, value in zip(backends, before[1:], strict=True):
            backend.fp32_precision = value
    dtype = torch.float64 if precision == "fp64" else torch.float32
    learner = learner_of(specification, 300)
    assert {parameter.dtype for parameter in learner.student.parameters()} == {dtype, learner.trainer.lr.dtype}


def test_only_what_is_trained_is_in_training_mode(specify, own_method):
    keys = {"DISTILLER.TYPE": "FeaturesAndModules"}
    learner = learner_of(specify(teacher=TEACHER, **keys), 300, build_network("resnet8", "digits"))
    for parts in ([learner.student, learner.method], [learner.teacher]):
        for part in parts:
            part.train(part is learner.teacher)
    learner.train()
    assert all(m.training for part in (learner.student, learner.method) for m in part.modules())
    assert not any(m.training for m in learner.teacher.modules())


def test_networks_have_the_published_numbers_of_parameters():
    """With 100 classes, as the papers and reference vectors count them."""
    published = {
        "resnet8": 83_892,
        "resnet14": 181_108,
        "resnet20": 278_324,
        "resnet32": 472_756,
        "resnet44": 667_188,
        "resnet56": 861_620,
        "resnet110": 1_736_564,
        "resnet8x4": 1_233_540,
        "resnet32x4": 7_433_860,
        "wrn_16_1": 180_916,
        "wrn_16_2": 703_284,
        "wrn_40_1": 569_780,
        "wrn_40_2": 2_255_156,
    }
    with torch.device("meta"):
        networks = {name: build_network(name, "cifar100") for name in components.networks("cifar100")}
    counted = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert counted == published


def test_the_digest_of_weights_covers_every_name_type_shape_and_number():
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1, dtype=torch.int64)}
    others = [
        {**weights, "a": weights["a"] + torch.tensor([[0, 0, 0], [0, 0, 1e-6]])},
        {**weights, "a": weights["a"].view(3, 2)},
        {**weights, "b": torch.tensor(2)},
        {**weights, "b": torch.tensor(1, dtype=torch.int32)},
        {"a": weights["a"], "c": weights["b"]},
        {"a": weights["a"]},
    ]
    assert len({weights_digest(w) for w in (weights, *others)}) == 1 + len(others)
    same = {"a": weights["a"].t().contiguous().t(), "b": weights["b"].clone()}  # another layout in memory
    assert weights_digest(same) == weights_digest(weights)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, specify, images):
    """(folder of runs, specification) of one finished run."""
    runs, specification = tmp_path_factory.mktemp("runs"), specify(**{"SOLVER.EPOCHS": 1})
    train(specification, images, runs / specification.id, runs / "work", runs, device="cpu", report=quiet)
    return runs, specification


def test_weights_other_than_the_record_names_are_not_loaded(finished_run, tmp_path):
    runs, specification = finished_run
    run = shutil.copytree(runs / specification.id, tmp_path / "run")
    for checkpoint in ("last", "best"):
        path = run / f"model.{checkpoint}.pt"
        weights = load_tensors(path)["model"]
        assert load_run(run, checkpoint)[2] == weights_digest(weights)
        weights["fc.bias"][3] += 1e-6
        save_tensors(path, {"model": weights})
        with pytest.raises(UserError, match=r"not the weights that record\.json names"):
            load_run(run, checkpoint)


def test_weights_of_another_network_are_not_loaded_whatever_the_record_names(finished_run, tmp_path):
    runs, specification = finished_run
    run = shutil.copytree(runs / specification.id, tmp_path / "run")
    weights = load_tensors(run / "model.last.pt")["model"]
    weights["fc.offset"] = weights.pop("fc.bias")
    save_tensors(run / "model.last.pt", {"model": weights})
    record = read_json(run / "record.json")
    record["weights"]["last"] = weights_digest(weights)
    (run / "record.json").write_text(to_json(record))
    with pytest.raises(UserError, match=r"not the weights of resnet8 for digits .*fc\.bias"):
        load_run(run, "last")


def test_a_teacher_is_the_run_that_the_specification_names(finished_run, specify, tmp_path):
    runs, specification = finished_run
    other = {"kind": "run", "id": specification.id[:-1] + ("0" if specification.id[-1] != "0" else "1")}
    student = specify(teacher={**other, "checkpoint": "last"}, **{"DISTILLER.TYPE": "KD"})
    shutil.copytree(runs / specification.id, tmp_path / other["id"])
    with pytest.raises(UserError, match=f"holds another run, {specification.id}"):
        load_teacher(student, tmp_path)
    student = specify(teacher={**other, "id": specification.id, "checkpoint": "last"}, **{"DISTILLER.TYPE": "KD"})
    network, digest = load_teacher(student, runs)
    assert digest == weights_digest(network.state_dict())
    assert not network.training and not any(p.requires_grad for p in network.parameters())


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


def test_a_method_knows_the_shapes_of_both_networks_and_the_number_of_images(specify):
    teacher = {**TEACHER, "id": "digits/wrn_16_2/none/s0-000000000000"}
    learner = learner_of(specify(teacher=teacher, **{"DISTILLER.TYPE": "KD"}), 123, build_network("wrn_16_2", "digits"))
    context = learner.method.context
    assert (context.num_classes, context.num_images) == (10, 123)
    for shapes, network in ((context.student, learner.student), (context.teacher, learner.teacher)):
        logits, features = network(torch.zeros(2, 3, 16, 16))
        assert shapes.logits.shape == logits.shape and shapes.logits.is_meta
        assert shapes.features["pooled_feat"].shape == features["pooled_feat"].shape
        assert [f.shape for f in shapes.features["feats"]] == [f.shape for f in features["feats"]]
    assert learner_of(specify(), 123).method.context.teacher is None


def test_the_commit_of_a_record_is_that_of_the_code_with_the_files_that_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert git_state() == (None, None)

    def git(*arguments):
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout

    for name in ("src/a.py", "params/b.yaml", "README.md"):
        write_atomically(tmp_path / name, "old")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "start")
    commit = git("rev-parse", "HEAD").strip()
    assert git_state() == (commit, [])
    for name in ("src/a.py", "README.md", "src/new/c.py"):
        write_atomically(tmp_path / name, "new")
    assert git_state() == (commit, ["src/a.py", "src/new/c.py"])


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


def test_two_steps_of_dot_are_those_of_its_formula():
    """Momenta 0.2 of the task and 0.4 of the distillation."""
    g, h, decay, rate = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double(), 0.01, 0.1
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    trainer = dot.Trainer([p], {"LR": rate, "MOMENTUM": 0.3, "WEIGHT_DECAY": decay}, {"DELTA": 0.1})
    expected, v, u = p.detach().clone(), torch.zeros(2).double(), torch.zeros(2).double()
    for _ in range(2):
        trainer.update({"ce": (p * g).sum(), "kd": (p * h).sum()})
        v = 0.2 * v + g + decay * expected
        u = 0.4 * u + h
        expected = expected - rate * v - rate * u
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=0)


def test_dot_with_a_distillation_loss_alone_descends_it():
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    trainer = dot.Trainer([p], {"LR": 0.1, "MOMENTUM": 0.9, "WEIGHT_DECAY": 0.0}, {"DELTA": 0.075})
    trainer.update({"kd": (p**2).sum()})
    torch.testing.assert_close(p.detach(), torch.full((2,), 0.8, dtype=torch.float64))


def test_what_is_observed_keeps_no_graph(specify, images):
    """A method may forget to detach: the sums of an epoch would hold every step's graph."""
    sums, value = Sums("cpu"), torch.ones(2, requires_grad=True) * 2
    sums.add({"seen": value})
    assert not sums.state_dict()["seen"].requires_grad

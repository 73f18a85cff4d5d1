"""Every method keeps the contract, alone, with every transform and with every trainer; formulas of GKD."""

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from standins import OWN, TEACHER, feed_of, learner_of

from distillbench.checks import method as contract
from distillbench.config import components, own_files
from distillbench.config.specification import Specification
from distillbench.engine.learner import Learner
from distillbench.engine.replay import Replayed
from distillbench.engine.streams import generator
from distillbench.engine.weights import weights_digest
from distillbench.errors import UserError
from distillbench.methods.base import Batch, Context, LogitMethod, Output
from distillbench.methods.kd import KD, kd_loss
from distillbench.models import build_network
from distillbench.transforms.base import Transform
from distillbench.transforms.gkd import GradientScaling


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


@pytest.mark.parametrize("name", [n for n, d in components.packaged_methods().items() if d["teacher"] != "none"])
def test_a_teachers_head_is_computed_for_the_methods_that_read_its_logits(name):
    built, called = contract.learner({"DISTILLER.TYPE": name}, 64), []
    built.teacher.fc.register_forward_hook(lambda layer, inputs, output: called.append(layer))
    contract.steps(built)
    assert len(called) == (components.methods()[name]["teacher"] == "logits")


@pytest.mark.parametrize("key", ["LABEL_SMOOTHING", "MIXUP"])
def test_a_cross_entropy_of_ones_own_is_refused_where_it_would_be_another(specify, key):
    own_files.use([str(OWN)])
    for keys, refused in (({}, False), ({f"SOLVER.{key}": 0.1}, True)):
        specification = specify(teacher=TEACHER, **{"DISTILLER.TYPE": "FeaturesAndModules", **keys})
        learner = learner_of(specification, 32, build_network("resnet8", "digits").eval())
        learner.begin(1, 0.1)
        says = rf"^FeaturesAndModules: SOLVER.{key} would have no effect .*; take batch.cross_entropy"
        with pytest.raises(UserError, match=says) if refused else nullcontext():
            learner.step(8)
    losses = learner.method.losses  # one that has no loss on labels at all may have its images mixed
    learner.method.losses = lambda *a: {name: loss for name, loss in losses(*a).items() if name != "ce"}
    with nullcontext() if key == "MIXUP" else pytest.raises(UserError, match=says):
        learner.step(8)
    own_files.use([])


def test_a_specification_from_before_a_key_existed_is_trained_as_it_was_then(specify):
    specification = specify(teacher=TEACHER, **{"DISTILLER.TYPE": "KD", "GKD.K": 0.5})
    older = Specification(copy.deepcopy(specification.data))
    del older.data["gradient_scaling"]["parameters"]["FACTORS"]
    assert older.id == specification.id
    assert learner_of(older, 300, build_network("resnet8", "digits")).method.transforms[0].kind == "confidence"
    newer = specify(teacher=TEACHER, **{"DISTILLER.TYPE": "KD", "GKD.FACTORS": "inverted"})
    assert learner_of(newer, 300, build_network("resnet8", "digits")).method.transforms[0].kind == "inverted"


@pytest.fixture
def own_method():
    own_files.use([str(OWN)])
    yield
    own_files.use([])


@pytest.mark.parametrize("rule", contract.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", [*components.methods(), "FeaturesAndModules"])
def test_every_method_keeps_the_contract_with_gkd_and_every_trainer(name, rule, own_method):
    for keys in contract.combinations(name).values():
        rule(keys)


@pytest.mark.parametrize("name", [name for name, d in components.methods().items() if "OFFICIAL" in d["keys"]])
def test_a_method_as_in_mdistillers_code_is_resumed_and_replayed(name):
    """Also one that moves what is frozen, when it is built."""
    for rule in (contract.resumes, contract.can_be_replayed):
        rule({"DISTILLER.TYPE": name, f"{name}.OFFICIAL": "mdistiller"})


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


def test_only_what_is_trained_is_in_training_mode(specify, own_method):
    keys = {"DISTILLER.TYPE": "FeaturesAndModules"}
    learner = learner_of(specify(teacher=TEACHER, **keys), 300, build_network("resnet8", "digits"))
    for parts in ([learner.student, learner.method], [learner.teacher]):
        for part in parts:
            part.train(part is learner.teacher)
    learner.train()
    assert all(m.training for part in (learner.student, learner.method) for m in part.modules())
    assert not any(m.training for m in learner.teacher.modules())


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


class Halved(Transform):
    """Stands for what changes the values of logits."""

    def forward(self, logits_student, logits_teacher, batch):
        return logits_student / 2, logits_teacher / 2


def test_of_two_transforms_the_second_sees_and_shows_what_the_first_made():
    parameters = {name: key.default for name, key in GradientScaling.keys.items()} | {"TEMPERATURE": 2.0, "K": 6.0}
    scaling = GradientScaling(parameters, temperature=4.0)
    hyperparameters = {name: key.default for name, key in KD.keys.items()}
    method = KD(hyperparameters, Context(10), (Halved(parameters, 4.0), scaling))
    z, target = torch.randn(8, 10, generator=generator(0, "a")).requires_grad_(), torch.arange(8)
    teacher, batch = Output(9 * torch.randn(8, 10, generator=generator(0, "b")), {}), Batch((), target, target)
    losses = method.losses(Output(z, {}), teacher, batch, {"warmup": 1.0})
    observed = method.observations(Output(z, {}), teacher, batch, losses)
    applied = scaling.sample_factors(teacher.logits / 2, batch)
    assert observed["factor"].sum().item() == pytest.approx(applied.sum().item())
    assert (applied - scaling.sample_factors(teacher.logits, batch)).abs().max() > 0.01
    bins = ((teacher.logits / 2 / 2).softmax(1).amax(1) * 20).long()
    assert observed["confidence"].tolist() == [(bins == i).sum().item() for i in range(20)]
    expected = kd_loss(z / 2, teacher.logits / 2, hyperparameters["TEMPERATURE"]) * hyperparameters["LOSS.KD_WEIGHT"]
    torch.testing.assert_close(losses["kd"], expected)


@pytest.mark.parametrize("name", sorted(n for n, d in components.methods().items() if d["capturable"]))
def test_replayed_steps_are_steps_that_no_recorder_watches(name):
    """A recorder changes how autograd adds gradients up; of maps of several pixels that moves no bit."""
    plain, replayed = (contract.learner({"DISTILLER.TYPE": name}) for _ in range(2))
    for built, step in ((plain, plain.step), (replayed, Replayed(replayed).step)):
        built.begin(1, 0.02)
        for size, observing in ((16, True), (16, False), (8, True)):
            step(size, observing)
    assert all(map(torch.equal, plain.statics(), replayed.statics()))

"""VID, OFD and REVIEWKD: what vectors of the official code do not show."""

import math

import pytest
import torch
import torch.nn.functional as F
from standins import TEACHER, learner_of

from distillbench.engine.streams import generator
from distillbench.engine.weights import weights_digest
from distillbench.errors import UserError
from distillbench.methods.base import Batch, Context, Output
from distillbench.methods.ofd import OFD, margin, partial_distance
from distillbench.methods.reviewkd import ReviewKD, hierarchical_context_loss
from distillbench.methods.vid import VID
from distillbench.models import build_network


def drawn(*shape, name="maps"):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(0, name))


def output(*shapes, name="maps"):
    """What a network gives that is nothing but maps of these shapes."""
    maps = [drawn(*shape, name=f"{name} {i}") for i, shape in enumerate(shapes)]
    return Output(drawn(shapes[0][0], 10), {"feats": maps, "preact_feats": maps, "pooled_feat": maps[-1].mean((2, 3))})


def built(method, student, teacher, teacher_bn=(), **hyperparameters):
    context = Context(10)
    context.student, context.teacher, context.teacher_bn = student, teacher, list(teacher_bn)
    declared = {name: key.default for name, key in method.keys.items() if key.identity}
    return method({**declared, **hyperparameters}, context).double()


def taught(specify, method, official, teacher="resnet8"):
    network = build_network(teacher, "digits").requires_grad_(False).eval()
    keys = {"DISTILLER.TYPE": method, f"{method}.OFFICIAL": official, "SOLVER.PRECISION": "fp64"}
    return learner_of(specify(teacher=TEACHER, **keys), 64, network)


OFFICIAL = pytest.mark.parametrize("official", ["paper", "mdistiller"])


# VID


@OFFICIAL
def test_variances_begin_where_they_are_told_and_learn_but_for_the_official_code(specify, official):
    learner = taught(specify, "VID", official)
    for stage, before in enumerate(map(torch.Tensor.clone, learner.method.log_scales)):
        torch.testing.assert_close(learner.method.variance(stage).double(), torch.full_like(before, 5.0))
    before = [scale.clone() for scale in learner.method.log_scales]
    learner.begin(1, 0.1)
    learner.step(16)
    moved = [not torch.equal(*pair) for pair in zip(before, learner.method.log_scales, strict=True)]
    assert moved == [official == "paper"] * 3
    assert len(learner.method.state_dict()) == 9 + 3


@OFFICIAL
def test_the_loss_is_that_of_normally_distributed_maps(official):
    shapes = (4, 3, 8, 8), (4, 5, 8, 8), (4, 6, 4, 4)
    student, teacher = output(*shapes), output(*shapes, name="teacher")
    method, target = built(VID, student, teacher, OFFICIAL=official), torch.zeros(4, dtype=torch.int64)
    expected = 0
    for i, (s, t) in enumerate(zip(student.stages(), teacher.stages(), strict=True)):
        torch.nn.init.normal_(method.log_scales[i].data, generator=generator(0, f"scales {i}"))
        variance = ((1 + method.log_scales[i].exp()).log() + 1e-5)[:, None, None].expand_as(t)
        expected = expected + F.gaussian_nll_loss(method.regressors[i](s), t, variance)
    loss = method.distillation_loss(student, teacher, Batch((), target, target), {})
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_a_variance_below_the_smallest_is_refused():
    networks = [output((2, 3, 8, 8), (2, 4, 8, 8))] * 2
    assert built(VID, *networks, INIT_PRED_VAR=2000.0).variance(0).mean().item() == pytest.approx(2000)
    with pytest.raises(UserError, match=r"^VID.INIT_PRED_VAR must be more than VID.EPS, 0.5$"):
        built(VID, *networks, INIT_PRED_VAR=0.25, EPS=0.5)


@OFFICIAL
def test_the_teacher_is_moved_by_noise_only_for_the_official_code(specify, official):
    learner, untouched = taught(specify, "VID", official), torch.zeros(16).double()
    assert torch.equal(learner.teacher.bn1.running_mean, untouched) == (official == "paper")


# OFD


def test_a_margin_is_the_mean_of_the_negative_values_of_a_normal_distribution():
    mean, deviation = torch.tensor([0.3, -0.7, 1.0, -5.0]), torch.tensor([0.5, -1.2, 0.4, 0.1])
    x = torch.linspace(-12, 0, 200_001, dtype=torch.float64)
    for i, found in enumerate(margin(mean, deviation)):
        density = torch.exp(-((x - mean[i].double()) ** 2) / (2 * deviation[i].double() ** 2))
        expected = torch.trapezoid(x * density, x) / torch.trapezoid(density, x)
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_channels_that_are_hardly_ever_negative_or_never_vary_have_a_margin():
    found = margin(torch.tensor([4.0, 3.0, 2.0, -2.0, 0.0]), torch.tensor([-1.0, 1.0, 0.0, 0.0, 0.0]))
    assert found[0] == -3 and -0.4 < found[1] < 0  # a thousandth of the second is negative
    assert found[2:].tolist() == [0, -2, 0]


def test_a_student_below_a_negative_value_is_near_enough():
    teacher, student = torch.tensor([-2.0, -2.0, 0.0, 1.0, 1.0]), torch.tensor([-3.0, -1.0, -1.0, -1.0, 3.0])
    shaped = (values.view(1, 5, 1, 1).repeat(3, 1, 1, 1) for values in (student, teacher))
    assert partial_distance(*shaped) == 0 + 1 + 0 + 4 + 4


@OFFICIAL
def test_the_teacher_normalises_with_its_own_statistics_but_for_the_official_code(specify, official):
    learner = taught(specify, "OFD", official, "wrn_16_2")
    for name, buffer in learner.teacher.named_buffers():
        if "running" in name:
            buffer.copy_(drawn(*buffer.shape, name=name).abs() + 0.5)
    before = weights_digest(learner.teacher.state_dict())
    learner.begin(1, 0.1)
    batch = learner.feed.batch(16)
    _, (seen,), _ = learner.method(*learner.callables, batch, learner.schedule)
    assert weights_digest(learner.teacher.state_dict()) == before
    assert not any(module.training for module in learner.teacher.modules())
    for mode in (False, True):
        logits, _ = learner.teacher.train(mode)(batch.views[0])
        assert torch.allclose(logits, seen.logits, rtol=1e-9) == (mode == (official == "mdistiller"))


def test_a_stage_without_a_normalisation_is_refused():
    networks = [output((2, 3, 8, 8), (2, 4, 8, 8), (2, 6, 4, 4), (2, 6, 2, 2))] * 2
    norms = [None, None, (torch.ones(6), torch.ones(6))]
    with pytest.raises(UserError, match=r"^OFD: stage 2 of the teacher ends in no batch normalisation, .*; choose"):
        built(OFD, output((2, 3, 8, 8), (2, 4, 8, 8), (2, 6, 4, 4)), networks[1], norms)
    built(OFD, output((2, 3, 8, 8), (2, 6, 4, 4)), networks[1], norms)


@OFFICIAL
def test_a_network_without_a_stem_takes_part_with_its_first_stage_but_for_the_official_code(official):
    student = output((2, 4, 8, 8), (2, 6, 4, 4), (2, 8, 2, 2))
    student.features["stem"] = drawn(2, 3, 8, 8)
    teacher = output((2, 3, 8, 8), (2, 5, 8, 8), (2, 6, 4, 4), (2, 6, 2, 2))
    method = built(OFD, student, teacher, [(torch.ones(n), torch.zeros(n)) for n in (5, 6, 6)], OFFICIAL=official)
    shapes = [tuple(layer[0].weight.shape[:2]) for layer in method.connectors.connectors]
    assert shapes == [(5, 4), (6, 6), (6, 8)][official == "mdistiller" :]


@pytest.mark.parametrize("official, expected", [("paper", 1.265625), ("mdistiller", 13.25)])
def test_maps_are_compared_at_the_smaller_size_and_by_the_official_code_at_the_students(official, expected):
    student, teacher = ([[1.0, -1.0], [0.5, 3.0]], [[2.0]])
    networks = [
        Output(None, {"preact_feats": [maps, maps]}) for maps in (torch.tensor([[m]]) for m in (student, teacher))
    ]
    method = built(OFD, *networks, [(torch.ones(1), torch.zeros(1))], OFFICIAL=official)
    method.connectors.connectors[0] = torch.nn.Identity()
    loss = method.distillation_loss(*networks, Batch((), torch.zeros(1), torch.zeros(1)), {})
    assert loss.item() == expected  # 13.25: mdistiller's feat_loss, at a08d46f


# REVIEWKD


def test_fusions_have_the_shapes_of_the_networks_from_the_deepest_on():
    student = output((2, 3, 12, 12), (2, 4, 12, 12), (2, 6, 6, 6), (2, 9, 5, 5), (2, 9, 2, 2))
    teacher = output((2, 5, 16, 16), (2, 7, 8, 8), (2, 11, 4, 4), name="teacher")
    method, target = built(ReviewKD, student, teacher), torch.zeros(2, dtype=torch.int64)
    shapes = [(f.conv1[0].in_channels, f.conv1[0].out_channels, f.conv2[0].out_channels) for f in method.abfs]
    assert shapes == [(9, 9, 11), (9, 9, 11), (9, 9, 7)]
    assert [fusion.att_conv is None for fusion in method.abfs] == [True, False, False]
    schedule = {"warmup": torch.tensor(1.0)}
    assert method.distillation_loss(student, teacher, Batch((), target, target), schedule).isfinite()
    with pytest.raises(
        UserError, match=r"^REVIEWKD: a last batch of one image has no statistics; choose another SOLVER"
    ):
        method.distillation_loss(student, teacher, Batch((), target[:1], target[:1]), schedule)


@OFFICIAL
def test_the_official_codes_first_level_is_the_first_map_that_the_student_has_published(official):
    teacher = output((2, 5, 16, 16), (2, 7, 8, 8), (2, 11, 4, 4), name="teacher")
    student = output((2, 4, 8, 8), (2, 6, 4, 4))
    method = built(ReviewKD, student, teacher, OFFICIAL=official)
    assert [fusion.conv1[0].in_channels for fusion in method.abfs] == [6, 6, 4][: 2 + (official == "mdistiller")]
    student.features["stem"] = drawn(2, 3, 8, 8)  # as MobileNetV1
    assert len(built(ReviewKD, student, teacher, OFFICIAL=official).abfs) == 3
    longer = output((2, 3, 8, 8), (2, 4, 8, 8), (2, 6, 4, 4))
    method = built(ReviewKD, longer, teacher, OFFICIAL=official)
    assert [fusion.conv1[0].in_channels for fusion in method.abfs] == [6, 6, 4]


@OFFICIAL
def test_the_width_of_a_fusion_is_limited_as_told_but_for_the_official_code(official):
    networks = [output((2, 3, 4, 4), (2, 600, 2, 2))] * 2
    assert built(ReviewKD, *networks, OFFICIAL=official).abfs[0].conv1[0].out_channels == 512
    narrow = built(ReviewKD, *networks, OFFICIAL=official, MAX_MID_CHANNEL=7)
    assert narrow.abfs[0].conv1[0].out_channels == (512 if official == "mdistiller" else 7)


def test_the_warm_up_is_the_published_one_or_none():
    networks = [output((2, 3, 4, 4), (2, 6, 2, 2))] * 2
    method = built(ReviewKD, *networks, WARMUP_EPOCHS=4)
    assert [method.schedule(epoch)["warmup"] for epoch in (1, 4, 5)] == [0.25, 1, 1]
    assert built(ReviewKD, *networks, WARMUP_EPOCHS=0).schedule(1) == {"warmup": 1.0}


@pytest.mark.parametrize("size, pools", [(8, (4, 2, 1)), (4, (2, 1)), (3, (2, 1)), (2, (1,)), (1, ())])
def test_the_context_is_averaged_over_what_is_smaller_than_the_map(size, pools):
    student, teacher = drawn(2, 3, size, size), drawn(2, 3, size, size, name="teacher")
    terms = [F.mse_loss(*(F.adaptive_avg_pool2d(maps, p) for maps in (student, teacher))) for p in (size, *pools)]
    weights = [0.5**i for i in range(len(terms))]
    expected = math.fsum(w * t.item() for w, t in zip(weights, terms, strict=True)) / sum(weights)
    assert hierarchical_context_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)

"""Methods on features: what vectors of the official code do not show."""

import pytest
import torch
import torch.nn.functional as F
from standins import TEACHER, learner_of

from distillbench.config.suite import load_suite
from distillbench.engine.streams import generator, initialisation
from distillbench.engine.weights import weights_digest
from distillbench.errors import UserError
from distillbench.methods.at import AT
from distillbench.methods.base import Batch, Context, Output
from distillbench.methods.features import at_one_size, stages
from distillbench.methods.fitnet import FitNet, Regressor
from distillbench.methods.kdsvd import KDSVD, aligned, singular
from distillbench.methods.pkt import PKT
from distillbench.methods.rkd import RKD, relative_distances
from distillbench.methods.sp import SP
from distillbench.models import build_network

PAIR = "dataset: digits\nseeds: [0]\npairs: [{teacher: resnet8, student: resnet8}]\nmethods:\n"


def drawn(*shape, name="maps"):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(0, name))


def output(*shapes):
    """The features of a network that is nothing but maps of these shapes."""
    maps = [drawn(*shape, name=f"maps {i}") for i, shape in enumerate(shapes)]
    return Output(drawn(shapes[0][0], 10), {"feats": maps, "pooled_feat": maps[-1].mean(dim=(2, 3))})


def built(method, student, teacher, **hyperparameters):
    context = Context(10)
    context.student, context.teacher = student, teacher
    declared = {name: key.default for name, key in method.keys.items() if key.identity}
    return method({**declared, **hyperparameters}, context).double()


def loss_of(method, student, teacher):
    target = torch.zeros(1, dtype=torch.int64)
    return method.distillation_loss(student, teacher, Batch((), target, target), {})


def test_weights_are_those_of_the_node():
    networks = [output((4, 3, 8, 8), (4, 4, 4, 4))] * 2
    target, weights = torch.arange(4), {"LOSS.CE_WEIGHT": 3.0, "LOSS.FEAT_WEIGHT": 5.0}
    networks[1] = Output(None, {"feats": [maps.flip(0) for maps in networks[0].features["feats"]]})
    method = built(SP, *networks, **weights)
    losses = method.losses(*networks, Batch((), target, target), {})
    torch.testing.assert_close(losses["ce"], 3 * F.cross_entropy(networks[0].logits, target))
    torch.testing.assert_close(losses["kd"], 5 * loss_of(method, *networks))


@pytest.mark.parametrize("first, second", [((8, 8), (4, 4)), ((7, 7), (5, 5)), ((4, 6), (8, 3)), ((4, 4), (4, 4))])
def test_the_larger_of_two_maps_is_averaged_down(first, second):
    sizes = [min(pair) for pair in zip(first, second, strict=True)]
    maps = drawn(2, 3, *first), drawn(2, 5, *second)
    for ours, given in zip(at_one_size(*maps), maps, strict=True):
        torch.testing.assert_close(ours, F.adaptive_avg_pool2d(given, sizes), rtol=1e-14, atol=1e-14)


def test_stages_are_paired_behind_the_stem():
    student, teacher = (Output(None, {"feats": [f"{who}{i}" for i in range(n)]}) for who, n in (("s", 4), ("t", 5)))
    assert stages(student, teacher) == [("s1", "t2"), ("s2", "t3"), ("s3", "t4")]
    assert stages(student, teacher, "mdistiller") == [("s1", "t1"), ("s2", "t2"), ("s3", "t3")]
    headless = Output(None, {"feats": ["s0", "s1", "s2", "s3"], "stem": "stem"})  # as MobileNetV1
    assert stages(headless, teacher) == [("s0", "t1"), ("s1", "t2"), ("s2", "t3"), ("s3", "t4")]


# AT


@pytest.mark.parametrize(
    "power, official, expected",
    [
        (1, "mdistiller", 0.00772212328633235),  # these of mdistiller's at_loss, at a08d46f
        (2, "mdistiller", 0.44529980377477096),
        (3, "mdistiller", 0.64353263517882),
        (1, "paper", 0.10557280900008414),  # and of absolute values
        (2, "paper", 0.44529980377477096),
        (3, "paper", 0.6644037524153129),
    ],
)
def test_attention_is_that_of_absolute_values_but_for_the_official_code(power, official, expected):
    values = [[[-1.0, 2.0]], [[3.0, 1.0]]], [[[1.0, 0.0]], [[1.0, 4.0]]]
    networks = [Output(None, {"feats": [0, torch.tensor([maps], dtype=torch.float64)]}) for maps in values]
    assert loss_of(built(AT, *networks, P=power, OFFICIAL=official), *networks).item() == pytest.approx(expected)


# FITNET


@pytest.mark.parametrize(
    "student, teacher, kind, kernel, stride",
    [
        ((8, 8), (4, 4), torch.nn.Conv2d, (3, 3), (2, 2)),
        ((4, 4), (8, 8), torch.nn.ConvTranspose2d, (4, 4), (2, 2)),
        ((8, 8), (8, 8), torch.nn.Conv2d, (1, 1), (1, 1)),
        ((7, 7), (5, 5), torch.nn.Conv2d, (3, 3), (1, 1)),
        ((4, 4), (16, 16), torch.nn.ConvTranspose2d, (13, 13), (1, 1)),
        ((33, 33), (32, 32), torch.nn.Conv2d, (2, 2), (1, 1)),
    ],
)
def test_the_regressor_of_a_hint_fits_both_networks(student, teacher, kind, kernel, stride):
    shapes = (2, 3, *student), (2, 5, *teacher)
    regressor = Regressor(*shapes)
    assert (type(regressor.conv), regressor.conv.kernel_size, regressor.conv.stride) == (kind, kernel, stride)
    assert regressor(torch.zeros(shapes[0])).shape == shapes[1]


def test_a_hint_layer_that_a_network_has_not_is_refused():
    networks = output((2, 3, 8, 8), (2, 4, 4, 4)), output((2, 3, 8, 8), (2, 4, 4, 4), (2, 4, 2, 2))
    assert built(FitNet, *networks, HINT_LAYER=1).conv_reg.conv.kernel_size == (1, 1)
    with pytest.raises(
        UserError, match=r"^FITNET.HINT_LAYER 2: the networks have 2 maps in common, must be at most 1$"
    ):
        built(FitNet, *networks)


def test_a_hint_layer_counts_from_the_stem():
    teacher, student = output(*(((2, 3, 8, 8), (2, 4, 4, 4), (2, 5, 2, 2)))), output((2, 6, 4, 4), (2, 7, 2, 2))
    student.features["stem"] = drawn(2, 8, 8, 8)  # as MobileNetV1
    sizes = [built(FitNet, student, teacher, HINT_LAYER=i).conv_reg.conv.weight.shape[:2] for i in range(3)]
    assert sizes == [(3, 8), (4, 6), (5, 7)]
    assert built(FitNet, student, teacher, HINT_LAYER=1, OFFICIAL="mdistiller").conv_reg.conv.in_channels == 7


@pytest.mark.parametrize("official, moved", [("paper", False), ("mdistiller", True)])
def test_the_teachers_statistics_move_to_those_of_noise_only_where_the_official_code_is_asked_for(
    specify, official, moved
):
    network = build_network("resnet8", "digits").requires_grad_(False).eval()
    before, mean = weights_digest(network.state_dict()), network.bn1.running_mean.clone()
    keys = {"DISTILLER.TYPE": "FITNET", "FITNET.OFFICIAL": official, "SOLVER.PRECISION": "fp64"}
    learner = learner_of(specify(teacher=TEACHER, **keys), 300, network)
    assert (weights_digest(network.float().state_dict()) != before) == moved and not network.training
    assert network.bn1.num_batches_tracked == learner.student.bn1.num_batches_tracked == int(moved)
    if moved:
        with initialisation(0, "method"):
            learner.method.__class__(learner.method.hyperparameters | {"OFFICIAL": "paper"}, learner.method.context)
            noise = torch.randn(1, 3, 16, 16)
        seen = network.conv1(noise).mean(dim=(0, 2, 3))
        torch.testing.assert_close(network.bn1.running_mean, 0.9 * mean + 0.1 * seen, rtol=1e-5, atol=1e-6)


def test_a_published_shape_is_noted_and_decides_nothing(tmp_path):
    (tmp_path / "params").mkdir()
    rows = "  plain: {DISTILLER.TYPE: FITNET}\n  shaped: {DISTILLER.TYPE: FITNET, FITNET.INPUT_SIZE: [64, 64]}\n"
    (tmp_path / "params/x.yaml").write_text(PAIR + rows)
    _, plain, shaped = load_suite("x", tmp_path).cells
    assert plain.specification.id == shaped.specification.id
    assert "INPUT_SIZE" not in shaped.specification["method"]["parameters"]
    (note,) = shaped.notes
    assert note == "FITNET.INPUT_SIZE [64, 64] is read, not used: the shapes come from the networks" and not plain.notes


# KDSVD


@pytest.mark.parametrize("shape", [(3, 9, 5), (3, 5, 9)], ids=str)
def test_singular_vectors_have_the_gradient_of_a_decomposition(shape):
    matrices, weights = drawn(*shape).requires_grad_(), drawn(3, shape[2], 2, name="weights")
    values, vectors = singular(matrices, 2)
    _, expected_values, rows = torch.linalg.svd(matrices, full_matrices=False)
    expected = rows.transpose(1, 2)[:, :, :2]
    assert torch.equal(vectors, expected) and torch.equal(values, expected_values[:, :2])
    ours, theirs = (torch.autograd.grad((v.square() * weights).sum(), matrices)[0] for v in (vectors, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "spoil", [torch.zeros_like, lambda m: m.index_fill(2, torch.tensor([1, 3]), 0), lambda m: m[..., :1].expand_as(m)]
)
def test_singular_vectors_have_a_finite_gradient_where_values_are_equal(spoil):
    matrices = spoil(drawn(3, 9, 5)).requires_grad_()
    _, vectors = singular(matrices, 4)
    (gradient,) = torch.autograd.grad((vectors * drawn(3, 5, vectors.shape[2])).sum(), matrices)
    assert gradient.isfinite().all()


def test_vectors_are_aligned_up_to_the_sign():
    basis = torch.linalg.qr(drawn(2, 6, 4)).Q
    vectors = basis[:, :, [2, 0, 3, 1]] * torch.tensor([1.0, -1.0, 1.0, -1.0])
    torch.testing.assert_close(aligned(vectors, basis[:, :, :2]), basis[:, :, :2])


@pytest.mark.parametrize("official", ["paper", "mdistiller"])
def test_the_loss_does_not_depend_on_the_signs_that_a_library_gives_to_singular_vectors(monkeypatch, official):
    shapes = (3, 4, 8, 8), (3, 6, 8, 8), (3, 8, 4, 4)
    student, teacher = output(*shapes), output(*shapes)
    student.features["feats"] = [maps.flip(0).relu() for maps in student.features["feats"]]
    method = built(KDSVD, student, teacher, OFFICIAL=official, K=2)
    expected, svd = loss_of(method, student, teacher), torch.linalg.svd

    def other_signs(matrices, full_matrices):
        u, values, rows = svd(matrices, full_matrices=full_matrices)
        signs = torch.tensor([1.0, -1.0]).double().repeat(rows.shape[1])[: rows.shape[1], None]
        signs = signs if len(seen) < 2 else -signs  # of the second stage
        seen.append(signs)
        return u * signs.T, values, rows * signs

    seen = []
    monkeypatch.setattr(torch.linalg, "svd", other_signs)
    torch.testing.assert_close(loss_of(method, student, teacher), expected)
    assert len(seen) == 4 and expected > 0


def test_other_channels_are_refused_with_what_takes_any_pair():
    student, teacher = (
        output((2, 3, 8, 8), (2, 4, 8, 8), (2, 8, 6, 6)),
        output((2, 3, 8, 8), (2, 8, 6, 6), (2, 8, 3, 3)),
    )
    with pytest.raises(UserError, match=r"^KDSVD: .* have \[4, 8\] channels, the teacher's \[8, 8\], .*OFFICIAL: mdis"):
        built(KDSVD, student, teacher)
    method = built(KDSVD, student, teacher, OFFICIAL="mdistiller")
    assert loss_of(method, student, teacher).isfinite()


def test_the_papers_vectors_have_an_entry_for_each_channel():
    maps = drawn(2, 6, 4, 4)
    matrices = built(KDSVD, *[output((2, 3, 8, 8), maps.shape)] * 2)._matrices(
        *[Output(None, {"feats": [0, maps]})] * 2
    )
    _, vectors = singular(matrices[0][0], 1)
    pixels = maps.flatten(2)[1]  # [C, H * W]
    first = torch.linalg.eigh(pixels @ pixels.T).eigenvectors[:, -1]
    torch.testing.assert_close(vectors[1, :, 0].abs(), first.abs())


def test_more_singular_vectors_than_a_stage_has_are_refused():
    networks = [output((2, 3, 8, 8), (2, 4, 8, 8), (2, 8, 2, 2))] * 2
    assert loss_of(built(KDSVD, *networks, K=4), *networks) == 0
    with pytest.raises(UserError, match=r"^KDSVD.K 5: a stage has 4 singular vectors, must be at most 4$"):
        built(KDSVD, *networks, K=5)


# Batches in which the official code divides by zero


@pytest.mark.parametrize("method", [PKT, RKD])
@pytest.mark.parametrize("points", [drawn(1, 6), drawn(4, 6).index_fill(0, torch.tensor([1]), 0), torch.zeros(3, 6)])
def test_relations_are_finite_also_of_one_image_and_of_features_that_are_0(method, points):
    points = points.double().requires_grad_()
    networks = [Output(None, {"pooled_feat": features}) for features in (points, drawn(*points.shape, name="t"))]
    loss = loss_of(built(method, *networks), *networks)
    (gradient,) = torch.autograd.grad(loss, points)
    assert loss.isfinite() and gradient.isfinite().all()


def test_distances_are_in_units_of_their_mean_over_pairs():
    points = torch.tensor([[0.0], [1.0], [3.0]])
    expected = torch.tensor([[0.0, 1, 3], [1, 0, 2], [3, 2, 0]])
    for squared, distances in ((False, expected), (True, expected**2)):
        ours = relative_distances(points - points[:, None], 1e-12, squared)
        torch.testing.assert_close(ours, distances * 6 / distances.sum())

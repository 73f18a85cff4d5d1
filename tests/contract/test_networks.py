"""Every network is the published one, keeps the contract of features, and can be tried on every dataset of its zoo."""

import math

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from standins import TEACHER, learner_of, specification_of

from distillbench.config import components
from distillbench.engine.feed import generated_feed
from distillbench.engine.networks import Student
from distillbench.engine.replay import Replayed
from distillbench.engine.weights import weights_digest
from distillbench.methods.base import Context, Output
from distillbench.methods.dry_pass import bn_before_relu, shapes
from distillbench.models import build_network, calibrate, network_cost
from distillbench.models.network import in_two_parts, logits_alone

PUBLISHED = {  # parameters, as the papers and reference vectors count them
    "cifar100": {
        "resnet8": 83_892,
        "resnet14": 181_108,
        "resnet20": 278_324,
        "resnet32": 472_756,
        "resnet44": 667_188,
        "resnet56": 861_620,
        "resnet110": 1_736_564,
        "resnet8x4": 1_233_540,
        "resnet32x4": 7_433_860,
        "ResNet18": 11_220_132,
        "ResNet50": 23_705_252,
        "wrn_16_1": 180_916,
        "wrn_16_2": 703_284,
        "wrn_40_1": 569_780,
        "wrn_40_2": 2_255_156,
        "vgg8": 3_965_028,
        "vgg11": 9_277_284,
        "vgg13": 9_462_180,
        "vgg16": 14_774_436,
        "vgg19": 20_086_692,
        "MobileNetV2": 812_836,
        "ShuffleV1": 949_258,
        "ShuffleV2": 1_355_528,
    },
    "tiny_imagenet": {"ResNet18": 11_271_432, "MobileNetV2": 2_497_480, "ShuffleV2": 1_458_028},
    "imagenet": {
        "ResNet18": 11_689_512,
        "ResNet34": 21_797_672,
        "ResNet50": 25_557_032,
        "ResNet101": 44_549_160,
        "MobileNetV1": 4_231_976,
    },
}
NETWORKS = [(dataset, name) for dataset, networks in PUBLISHED.items() for name in networks]
CLASSES = [  # one network of each class, the largest maps last
    ("cifar100", "resnet8"),
    ("cifar100", "wrn_16_1"),
    ("cifar100", "vgg8"),
    ("cifar100", "MobileNetV2"),
    ("cifar100", "ShuffleV1"),
    ("cifar100", "ShuffleV2"),
    ("tiny_imagenet", "MobileNetV2"),
    ("imagenet", "MobileNetV1"),
]
of_every_network = pytest.mark.parametrize("dataset, name", NETWORKS)
of_every_class = pytest.mark.parametrize("dataset, name", CLASSES)


def on_meta(dataset, name):
    """A network without values, and two images for it."""
    with torch.device("meta"):
        size = components.datasets()[dataset]["image_size"]
        return build_network(name, dataset), torch.empty(2, 3, size, size)


def filled(dataset, name):
    """A network in fp64 whose weights of the batch normalisation differ, in evaluation mode, and two images for it."""
    size = components.datasets()[dataset]["image_size"]
    torch.manual_seed(0)
    network = build_network(name, dataset).double().eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    return network, torch.randn(2, 3, size, size, dtype=torch.float64)


def test_the_networks_are_the_published_ones():
    assert {dataset: components.networks(dataset).keys() for dataset in PUBLISHED} == {
        dataset: networks.keys() for dataset, networks in PUBLISHED.items()
    }
    for dataset, name in NETWORKS:
        network, _ = on_meta(dataset, name)
        assert sum(p.numel() for p in network.parameters()) == PUBLISHED[dataset][name], (dataset, name)
    assert {type(on_meta(*place)[0]) for place in CLASSES} == {type(on_meta(*place)[0]) for place in NETWORKS}


@of_every_network
def test_an_output_holds_the_features_of_the_contract(dataset, name):
    """In training mode on the meta device, where reading a value back would raise."""
    network, images = on_meta(dataset, name)
    output = Output(*network(images))
    assert output.logits.shape == (2, components.datasets()[dataset]["num_classes"])
    kinds = ("feats", "preact_feats", "pooled_feat")
    assert set(kinds) <= output.features.keys() <= {*kinds, "stem"}
    assert [m.shape for m in output.maps()] == [m.shape for m in output.maps("preact_feats")]
    assert all(map.dim() == 4 for map in output.maps()) and output.pooled.dim() == 2
    sizes = [map.shape[2] for map in output.maps()]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] >= images.shape[2] / 2
    assert len(output.stages()) == len(sizes) - 1 == len(output.stages("preact_feats"))
    assert output.stages()[-1] is output.features["feats"][-1]


def test_a_calibrated_network_has_the_statistics_of_its_images():
    network, images = filled("cifar100", "resnet8")
    calibrate(network, images)
    seen = network.conv1(images)
    torch.testing.assert_close(network.bn1.running_mean, seen.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(network.bn1.running_var, seen.var(dim=(0, 2, 3)))


@of_every_network
def test_the_cost_of_a_network_is_what_torch_counts(dataset, name):
    from torch.utils.flop_counter import FlopCounterMode

    network, images = on_meta(dataset, name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(images[:1])
    counted = PUBLISHED[dataset][name], counter.get_total_flops() // 2
    assert network_cost(network, images.shape[2]) == counted


@of_every_network
def test_the_logits_are_those_of_one_linear_layer(dataset, name):
    """Which stays in fp32 where convolutions are computed in bf16."""
    network, images = on_meta(dataset, name)
    (layer,) = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    returned = []
    layer.register_forward_hook(lambda layer, inputs, output: returned.append(output))
    assert network(images)[0] is returned[0]


@of_every_class
def test_features_are_had_without_the_head_and_logits_without_features_of_no_use_to_them(dataset, name):
    """As a frozen teacher is asked: the numbers are those of the whole network, bit by bit."""
    network, images = filled(dataset, name)
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.BatchNorm2d, nn.Linear))]
    called = []
    for layer in layers:
        layer.register_forward_hook(lambda layer, inputs, output: called.append(layer))
    with torch.no_grad():
        whole = Output(*network(images))
        called.clear()
        features, logits = in_two_parts(network, images)
        assert not any(isinstance(layer, nn.Linear) for layer in called)
        assert torch.equal(logits(), whole.logits) and isinstance(called.pop(), nn.Linear)
        called.clear()
        assert torch.equal(logits_alone(network, images), whole.logits)
        assert sorted(map(id, called)) == sorted(map(id, layers)), "each once"
    parts = Output(whole.logits, features)
    assert features.keys() == whole.features.keys() and torch.equal(parts.pooled, whole.pooled)
    for kind in ("feats", "preact_feats"):
        assert all(map(torch.equal, parts.maps(kind), whole.maps(kind)))


def test_a_network_whose_forward_is_its_own_is_asked_as_a_whole():
    class Doubled(type(build_network("resnet8", "digits"))):
        def forward(self, images):
            logits, features = super().forward(images)
            return 2 * logits, {**features, "pooled_feat": 3 * features["pooled_feat"]}

    network, images = filled("digits", "resnet8")
    plain, network.__class__ = network(images), Doubled
    features, logits = in_two_parts(network, images)
    assert torch.equal(logits(), 2 * plain[0]) and torch.equal(features["pooled_feat"], 3 * plain[1]["pooled_feat"])
    assert torch.equal(logits_alone(network, images), 2 * plain[0])


@of_every_class
def test_a_dry_pass_changes_nothing(dataset, name):
    network = build_network(name, dataset)
    before = weights_digest(network.state_dict())
    size = components.datasets()[dataset]["image_size"]
    assert shapes(network, size).logits.shape == (2, components.datasets()[dataset]["num_classes"])
    assert None not in bn_before_relu(network.requires_grad_(False), size)
    assert weights_digest(network.state_dict()) == before and network.training
    assert not any(module._forward_hooks for module in network.modules())


@of_every_class
def test_the_batch_normalisation_in_front_of_a_relu_moves_the_map(dataset, name):
    """Its bias by 1, and the map moves by 1; channels that have none do not move."""
    network, images = filled(dataset, name)
    found = bn_before_relu(network, images.shape[2])
    parameters = {p.data_ptr(): p for p in network.parameters()}
    with torch.no_grad():
        before = Output(*network(images)).stages("preact_feats")
        assert [len(weight) for weight, _ in found] == [stage.shape[1] for stage in before]
        for i, (weight, bias) in enumerate(found):
            passed = bias == 0
            layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
            if bias.data_ptr() not in parameters:  # joined
                (layer,) = (one for one in layers if torch.equal(one.bias, bias[~passed]))
                assert torch.equal(layer.weight, weight[~passed])
                bias = layer.bias
            bias += 1
            moved = Output(*network(images)).stages("preact_feats")[i] - before[i]
            bias -= 1
            assert passed.sum() == (len(passed) // 2 if name == "ShuffleV2" else 0)
            torch.testing.assert_close(moved, (~passed).to(moved).view(1, -1, 1, 1).expand_as(moved))


def test_a_map_that_no_batch_normalisation_made_has_none():
    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x):
            stem = F.relu(self.bn(x))
            joined = torch.cat([stem, stem], dim=1)
            return x, {"preact_feats": [stem, F.max_pool2d(stem, 2), joined, stem + self.bn(x)], "pooled_feat": x}

    assert bn_before_relu(Pooling(), 4) == [None] * 3


def test_a_method_sees_the_shapes_of_both_networks_and_the_teachers_batch_normalisation():
    student, teacher = build_network("MobileNetV2", "cifar100"), build_network("vgg8", "cifar100")
    context = Context(100, 32, student_network=student, teacher_network=teacher)
    assert [tuple(stage.shape[1:]) for stage in context.student.stages()] == [
        (12, 16, 16),
        (16, 8, 8),
        (48, 4, 4),
        (160, 2, 2),
    ]
    blocks = teacher.block1, teacher.block2, teacher.block3, teacher.block4
    assert [weight.data_ptr() for weight, _ in context.teacher_bn] == [block[1].weight.data_ptr() for block in blocks]
    assert Context(100, 32, student_network=student).teacher is None


@pytest.mark.parametrize("dataset, name", [place for place in CLASSES if place[1] != "wrn_16_1"])
def test_maps_are_the_rectified_ones_where_a_relu_follows(dataset, name):
    network, images = filled(dataset, name)
    with torch.no_grad():
        output = Output(*network(images))
    pairs = list(zip(output.maps(), output.maps("preact_feats"), strict=True))
    for i, (map, preact) in enumerate(pairs):
        assert i == 0 or preact.min() < 0
        if name == "MobileNetV2" and i:  # linear but for the last of Tiny-ImageNet
            last = dataset == "tiny_imagenet" and i == len(pairs) - 1
            assert torch.equal(map, F.relu6(preact) if last else preact)
        elif name == "ShuffleV2" and i:  # shuffled, and half of the channels passed
            assert torch.equal(map, torch.stack(F.relu(preact).chunk(2, dim=1), dim=2).flatten(1, 2))
        else:
            assert torch.equal(map, F.relu(preact)) and map.min() == 0


def test_the_stem_of_mobilenetv1_is_the_map_before_its_first_stage():
    network, images = filled("imagenet", "MobileNetV1")
    with torch.no_grad():
        features = network(images[:, :, :32, :32])[1]
        assert features["stem"].shape == (2, 64, 16, 16)
        third = F.relu(network.model[3](F.relu(network.model[2](features["stem"]))))
    torch.testing.assert_close(third, features["feats"][0])


@pytest.mark.parametrize("size, sizes", [(32, [32, 16, 8, 4, 4]), (48, [48, 24, 12, 6, 6]), (64, [64, 32, 16, 8, 4])])
def test_a_vgg_halves_the_maps_of_images_of_64_pixels_once_more(size, sizes):
    """As mdistiller's, at a08d46f."""
    _, features = build_network("vgg8", "cifar100").eval()(torch.zeros(1, 3, size, size))
    assert [maps.shape[-1] for maps in features["feats"]] == sizes


@pytest.mark.parametrize("dataset, name", [*CLASSES[2:], ("cifar100", "ResNet50")])
def test_first_weights_are_drawn_as_published(dataset, name):
    """Convolutions normal, of variance 2 / (outputs of a window), or as torch draws them; so too the classifier."""
    torch.manual_seed(0)
    network = build_network(name, dataset)
    drawn = name in ("vgg8", "ResNet50") or (dataset, name) == ("cifar100", "MobileNetV2")
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 5000]
    for layer in layers:
        window = math.prod(layer.kernel_size)
        deviation = math.sqrt(2 / (window * layer.out_channels) if drawn else 1 / (3 * layer.weight[0].numel()))
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.05)
        if layer.bias is not None:
            assert bool(layer.bias.any()) != drawn
    (head,) = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    small = drawn and name != "ResNet50"
    assert head.weight.std().item() == pytest.approx(0.01 if small else 1 / math.sqrt(3 * head.in_features), rel=0.05)
    assert len(layers) > 2 and bool(head.bias.any()) != small


@of_every_class
def test_steps_can_be_replayed_and_maps_keep_their_channels_last(dataset, name):
    keys = {"DATASET.TYPE": dataset, "DISTILLER.STUDENT": name, "SOLVER.PRECISION": "fp32"}
    plain, replayed = (learner_of(specification_of(**keys), 4) for _ in range(2))
    inputs = []
    for layer in plain.student.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(lambda layer, images: inputs.extend(images))
    for step, learner in ((plain.step, plain), (Replayed(replayed).step, replayed)):
        for epoch, lr in ((1, 0.002), (2, 0.001)):
            learner.begin(epoch, lr)
            step(2)
    assert all(map(torch.equal, plain.statics(), replayed.statics()))
    assert inputs and all(map.stride(1) == 1 for map in inputs if map.shape[1] > 1)


@of_every_class
def test_the_classifier_of_a_network_in_bf16_stays_in_fp32(dataset, name):
    network = build_network(name, dataset).eval()
    size = components.datasets()[dataset]["image_size"]
    with torch.no_grad():
        output = Student(network, "bf16")._output(torch.rand(1, 3, size, size))
    assert output.logits.dtype == torch.float32 and output.pooled.dtype == torch.float32


@pytest.mark.parametrize("name", components.datasets())
def test_datasets_that_cannot_be_loaded_yet_have_batches_of_their_shape(name):
    """Random ones, to build and try networks and methods on; two views of an image differ."""
    declared = components.datasets()[name]
    specification = {"dataset": {"name": name}, "views": {"count": 2}, "precision": "fp64", "seed": 0}
    feed = generated_feed(specification, 8)
    feed.begin(1)
    batch = feed.batch(6)
    shape, classes = (6, 3, declared["image_size"], declared["image_size"]), declared["num_classes"]
    assert [(view.shape, view.dtype) for view in batch.views] == [(shape, torch.float64)] * 2
    assert not torch.equal(*batch.views)
    assert batch.target.min() >= 0 and batch.target.max() < classes and len(batch.index.unique()) == 6
    assert batch.views[0].mean(dim=(0, 2, 3)).abs().max() < 1  # normalised


@pytest.mark.parametrize("name", components.datasets())
def test_methods_can_be_tried_on_every_dataset_with_networks(name):
    network = next(iter(components.networks(name)))
    keys = {"DATASET.TYPE": name, "DISTILLER.STUDENT": network, "DISTILLER.TYPE": "KD"}
    learner = learner_of(specification_of(teacher=TEACHER, **keys), 4, build_network(network, name).eval())
    learner.begin(1, 0.1)
    before = weights_digest(learner.student.state_dict())
    learner.step(2)
    assert weights_digest(learner.student.state_dict()) != before
    assert learner.method.context.num_classes == components.datasets()[name]["num_classes"]

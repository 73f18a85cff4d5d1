"""Every network is the published one, and can be tried on every dataset of its zoo."""

import pytest
import torch
from standins import TEACHER, learner_of, specification_of

from distillbench.config import components
from distillbench.engine.feed import generated_feed
from distillbench.engine.weights import weights_digest
from distillbench.methods.base import Output
from distillbench.models import build_network, network_cost


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


@pytest.mark.parametrize("name", [name for name in components.datasets() if components.networks(name)])
def test_methods_can_be_tried_on_every_dataset_with_networks(name):
    specification = specification_of(teacher=TEACHER, **{"DATASET.TYPE": name, "DISTILLER.TYPE": "KD"})
    learner = learner_of(specification, 8, build_network("resnet14", name))
    learner.begin(1, 0.1)
    before = weights_digest(learner.student.state_dict())
    learner.step(4)
    assert weights_digest(learner.student.state_dict()) != before
    assert learner.method.context.num_classes == components.datasets()[name]["num_classes"]

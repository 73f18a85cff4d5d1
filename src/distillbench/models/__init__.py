"""Networks, one file a family. A family's file declares its `name`, `version` and `networks`."""

from importlib import import_module

import torch

from distillbench.config import components


def build_network(name, num_classes):
    """The network `name` with freshly initialised weights, drawn from torch's global generator.

    Its forward takes images [N, 3, H, W] and returns (logits [N, num_classes], features), features being the
    published dictionary: "feats" and "preact_feats" (lists of maps), "pooled_feat" [N, D].
    """
    network = components.networks()[name]
    family = import_module(f"distillbench.models.{network['module']}")
    return family.build(num_classes=num_classes, **network["arguments"])


@torch.no_grad()
def network_cost(network, image_size):
    """(parameters, multiply-adds of one image) of a network; the latter of convolutions and linear layers."""
    from torch.utils.flop_counter import FlopCounterMode

    weight = next(network.parameters())
    image = torch.zeros(1, 3, image_size, image_size, dtype=weight.dtype, device=weight.device)
    with FlopCounterMode(display=False) as counter:
        network.eval()(image)
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2

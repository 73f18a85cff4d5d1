"""Networks: a folder a zoo, a file a family. A family's file declares its `name`, `version` and `networks`.

A dataset names its zoo: a network of one name is another for images of another size.
"""

import torch
import torch.nn as nn

from distillbench.config import components


def build_network(name, dataset):
    """The network of a name for a dataset of a name, its weights freshly drawn from torch's global generator.

    Its forward takes images [N, 3, H, W] and returns (logits [N, num_classes], features), features being the
    published dictionary: "feats" and "preact_feats" (lists of maps), "pooled_feat" [N, D].
    """
    network, num_classes = components.networks(dataset)[name], components.datasets()[dataset]["num_classes"]
    return components.module("family", network).build(num_classes=num_classes, **network["arguments"])


@torch.no_grad()
def network_cost(network, image_size):
    """(parameters, multiply-adds of one image) of a network; the latter of convolutions and linear layers."""
    counts = []

    def count(layer, inputs, output):
        counts.append(output.numel() * layer.weight[0].numel())

    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    weight = next(network.parameters())
    network.eval()(torch.zeros(1, 3, image_size, image_size, dtype=weight.dtype, device=weight.device))
    for hook in hooks:
        hook.remove()
    return sum(parameter.numel() for parameter in network.parameters()), sum(counts)

"""Networks: a folder a zoo, a file a family. A family's file declares its `name`, `version` and `networks`.

Beside them there are those in files of the user's own and of other libraries, whose features hooks see (`hooked`).

A dataset names its zoo: a network of one name is another for images of another size. Files here beside the folders have
what several families are made of.

The package's families derive from `network.Network`: features, and a head on them, each to be had alone. The forward of
a network takes images [N, 3, H, W] and returns (logits [N, C], features). features is mdistiller's dictionary, its
entries being the published ones:

"feats": maps [N, D, H, W] of the stem and of each stage, the deepest last, behind the last ReLU of each. Wide residual
    networks and MobileNetV2 have none behind a stage: theirs are before the first layer of the next.
"preact_feats": as many, before that ReLU, or the same maps where there is none; of wide residual networks, before the
    ReLU that the next stage begins with. The stem is that of "feats".
"pooled_feat": the average over the pixels of the last map, [N, D]; of MobileNetV2 for Tiny-ImageNet [N, D, 1, 1]. The
    last map of MobileNetV2 and ShuffleNetV2 for CIFAR is that of a 1x1 convolution more.
"stem": of MobileNetV1 alone, whose published lists begin with the first stage.

Methods that count maps take `Output.maps`, `Output.stages` and `Output.pooled`, which are alike for all.
"""

import torch
import torch.nn as nn

from distillbench.config import components
from distillbench.models.hooked import with_features
from distillbench.models.libraries import library_network


def build_network(name, dataset):
    """The network of a name for a dataset of a name, its weights freshly drawn from torch's global generator.

    dataset: has the number of classes, and the zoo in which the name is looked up. Raises UserError where there is none
    of this name; for one of the user's own or of a library also as `hooked.with_features` does.
    """
    declared, data = components.network(name, dataset), components.datasets()[dataset]
    num_classes, named = data["num_classes"], {}
    if "library" in declared:
        network = library_network(name, num_classes)
    else:
        network = components.module("family", declared).build(num_classes=num_classes, **declared["arguments"])
        named = {field: declared[field] for field in ("stages", "stem", "head") if field in declared}
    if "library" in declared or "file" in declared:
        return with_features(network, name, data["image_size"], num_classes, **named)
    return network


@torch.no_grad()
def calibrate(network, images):
    """Give a network that was never trained the running statistics of images [N, 3, H, W], in training mode.

    In evaluation mode its activations then have the size of those of a trained one.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average of all batches, of which there is one
    network.train()(images)


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

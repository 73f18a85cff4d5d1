"""What a network says of itself in one pass over a blank image, in evaluation mode: nothing of it changes."""

import copy
from contextlib import contextmanager

import torch
import torch.nn as nn

from distillbench.tasks.classification.batches import Output


def shapes(network, image_size):
    """The `Output` for a batch of two, on the meta device. On that device itself the pass would import a compiler."""
    with _evaluated(network, image_size) as images, torch.no_grad():
        logits, features = network(images)
    on_meta = copy.copy(features)  # which may have a reason for what is not there
    on_meta.update((name, _on_meta(feature)) for name, feature in features.items())
    return Output(logits.to("meta"), on_meta)


def bn_before_relu(network, image_size):
    """[(weight [D], bias [D]) or None] of the batch normalisation that made each of `Output.stages("preact_feats")`.

    Of a sum it is that of the first term, the branch of a residual block. Channels that come from none, as those which
    pass a block of ShuffleNetV2 behind their ReLU, have 0 and 0; a map that comes from none has None.
    """
    made = {}
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(lambda layer, _, map: made.update({map.grad_fn: layer})) for layer in layers]
    with _evaluated(network, image_size) as images, torch.enable_grad():
        output = Output(*network(images.requires_grad_()))
    for hook in hooks:
        hook.remove()
    return [_maker(stage.grad_fn, made, stage.shape[1]) for stage in output.stages("preact_feats")]


def _maker(node, made, channels):
    """(weight, bias) of what made a map; node: of the autograd graph, made: {node: module}."""
    if node in made:
        return made[node].weight.detach(), made[node].bias.detach()
    terms = [term for term, _ in node.next_functions]
    if node.name().startswith("Add"):
        return _maker(terms[0], made, channels)
    found = [_maker(term, made, channels) for term in terms] if node.name().startswith("Cat") else []
    if len(found) - found.count(None) == 0 or found.count(None) > 1:
        return None
    known = [pair for pair in found if pair]
    passed = known[0][0].new_zeros(channels - sum(len(weight) for weight, _ in known))
    return tuple(map(torch.cat, zip(*(pair or (passed, passed) for pair in found), strict=True)))


@contextmanager
def _evaluated(network, image_size):
    """Two blank images; inside, the network is in evaluation mode."""
    training, weight = network.training, next(network.parameters())
    network.eval()
    try:
        yield torch.zeros(2, 3, image_size, image_size, dtype=weight.dtype, device=weight.device)
    finally:
        network.train(training)


def _on_meta(feature):
    return feature.to("meta") if isinstance(feature, torch.Tensor) else [_on_meta(entry) for entry in feature]

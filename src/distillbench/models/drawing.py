"""First weights as the published networks draw them, where they differ from torch's."""

import torch.nn as nn


def draw_convolutions(network):
    """Normal, of variance 2 / (outputs of a pixel's window) (He et al. 2015); biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def draw_classifier(layer):
    """Normal, of deviation 0.01; biases 0."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)

"""Blocks of MobileNets: convolutions split into one within a channel and one within a pixel."""

import torch.nn as nn


def normalised(*convolution, activation=nn.ReLU, bias=False, **options):
    """[convolution, batch normalisation, activation]; convolution, options: arguments of `nn.Conv2d`."""
    layer = nn.Conv2d(*convolution, bias=bias, **options)
    return [layer, nn.BatchNorm2d(layer.out_channels), activation(inplace=True)]


def depthwise(channels, stride, **options):
    """`normalised` with a 3x3 convolution of each channel by itself."""
    return normalised(channels, channels, 3, stride, padding=1, groups=channels, **options)


class InvertedResidual(nn.Module):
    """A wide depthwise convolution between two narrow maps (Sandler et al. 2018); no ReLU behind it.

    branch: its name in the state dict; options: of `normalised`.
    """

    def __init__(self, in_channels, channels, stride, expansion, branch, **options):
        super().__init__()
        wide = in_channels * expansion
        layers = [
            *normalised(in_channels, wide, 1, **options),
            *depthwise(wide, stride, **options),
            *normalised(wide, channels, 1, **options)[:-1],
        ]
        self.name, self.has_shortcut = branch, stride == 1 and in_channels == channels
        self.add_module(branch, nn.Sequential(*layers))

    def forward(self, x):
        out = getattr(self, self.name)(x)
        return out + x if self.has_shortcut else out


def inverted_residuals(in_channels, channels, number, stride, *arguments, **options):
    """A stage of `InvertedResidual`s, the first of which has the stride."""
    first = InvertedResidual(in_channels, channels, stride, *arguments, **options)
    return [first, *(InvertedResidual(channels, channels, 1, *arguments, **options) for _ in range(number - 1))]

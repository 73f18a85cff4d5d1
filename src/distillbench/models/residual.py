"""Residual networks (He et al. 2016): blocks, and the network that the families of all zoos are made of.

Zoos differ in the stem, in the number of stages, and in what the published state dicts call the projection of a
shortcut and the classifier.
"""

import torch.nn as nn
import torch.nn.functional as F

from distillbench.models.drawing import draw_convolutions
from distillbench.models.network import Network


class Block(nn.Module):
    """A branch beside a shortcut; it returns what is before its last ReLU. A subclass has the layers of `branch`."""

    def _add_projection(self, name, in_channels, out_channels, stride):
        projection = None
        if stride != 1 or in_channels != out_channels:
            convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            projection = nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
        self.projection = name
        self.register_module(name, projection)

    def forward(self, x):
        projection = getattr(self, self.projection)
        return self.branch(x) + (x if projection is None else projection(x))


class BasicBlock(Block):
    expansion = 1

    def __init__(self, in_channels, channels, stride, projection):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self._add_projection(projection, in_channels, channels, stride)

    def branch(self, x):
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))


class Bottleneck(Block):
    expansion = 4

    def __init__(self, in_channels, channels, stride, projection):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self._add_projection(projection, in_channels, channels * self.expansion, stride)

    def branch(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(F.relu(self.bn2(self.conv2(x)))))


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(Network):
    """widths: channels of the stem and of each stage, before a block's expansion; depths: blocks of each stage.

    block: of `BLOCKS`; large: whether the stem is that for large images, 7x7 with a pooling behind it, or one 3x3;
    projection, head: names in the state dict of a shortcut's projection and of the classifier.
    """

    def __init__(self, block, widths, depths, num_classes, large=False, projection="downsample", head="fc"):
        super().__init__()
        block, self.large, self.head = BLOCKS[block], large, head
        size, stride = (7, 2) if large else (3, 1)
        self.conv1 = nn.Conv2d(3, widths[0], size, stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages, channels = [], widths[0]
        for i, (width, depth) in enumerate(zip(widths[1:], depths, strict=True), 1):
            blocks = []
            for j in range(depth):
                stride = 2 if i > 1 and j == 0 else 1
                blocks.append(block(channels, width, stride, projection))
                channels = width * block.expansion
            self.stages.append(f"layer{i}")
            self.add_module(f"layer{i}", nn.Sequential(*blocks))
        self.add_module(head, nn.Linear(channels, num_classes))
        draw_convolutions(self)

    def extract(self, x):
        stem = x = F.relu(self.bn1(self.conv1(x)))
        if self.large:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        feats, preact_feats = [stem], [stem]
        for stage in self.stages:
            for block in getattr(self, stage):
                preact = block(x)
                x = F.relu(preact)
            feats.append(x)
            preact_feats.append(preact)
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return {"feats": feats, "preact_feats": preact_feats, "pooled_feat": pooled}

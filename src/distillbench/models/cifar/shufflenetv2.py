"""ShuffleNetV2 (Ma et al. 2018) of the width 1x, for images of 32x32.

State-dict keys, features and arithmetic are those of mdistiller/models/cifar/ShuffleNetv2.py: a 1x1 stem without
pooling. The published pooling of 4x4 maps is adaptive here: the same for 32x32 images, and other sizes work.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from distillbench.models.network import Network
from distillbench.models.shuffling import shuffled

name = "shufflenetv2"
version = 1
bibtex = """
@inproceedings{ma2018shufflenet,
  title = {{ShuffleNet V2}: Practical Guidelines for Efficient {CNN} Architecture Design},
  author = {Ma, Ningning and Zhang, Xiangyu and Zheng, Hai-Tao and Sun, Jian},
  booktitle = {European Conference on Computer Vision},
  pages = {116--131},
  year = {2018}
}"""
networks = {"ShuffleV2": {"widths": (24, 116, 232, 464, 1024), "depths": (4, 8, 4)}}


class BasicBlock(nn.Module):
    """Half of the channels pass, the others go through a branch."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x):
        """(output, what is before its last ReLU: maps to be joined, whose channels are not shuffled)"""
        passed, x = x.chunk(2, dim=1)
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        preact = self.bn3(self.conv3(x))
        return shuffled(torch.cat([passed, F.relu(preact)], dim=1), 2), (passed, preact)


class DownBlock(nn.Module):
    """Both branches halve the map."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, stride=2, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x):
        """As `BasicBlock.forward`."""
        preact = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        x = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        preacts = preact, self.bn5(self.conv5(x))
        return shuffled(F.relu(torch.cat(preacts, dim=1)), 2), preacts


class ShuffleNetV2(Network):
    head = "linear"

    def __init__(self, widths, depths, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(DownBlock(widths[i], widths[i + 1]), *(BasicBlock(widths[i + 1]) for _ in range(depth - 1)))
            for i, depth in enumerate(depths)
        )
        self.conv2 = nn.Conv2d(widths[-2], widths[-1], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], num_classes)

    def extract(self, x):
        stem = x = F.relu(self.bn1(self.conv1(x)))
        feats, preact_feats = [stem], [stem]
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                x, preacts = block(x)
            feats.append(x)
            preact_feats.append(torch.cat(preacts, dim=1))
        pooled = F.adaptive_avg_pool2d(F.relu(self.bn2(self.conv2(x))), 1).flatten(1)
        return {"feats": feats, "preact_feats": preact_feats, "pooled_feat": pooled}


def build(num_classes, widths, depths):
    return ShuffleNetV2(widths, depths, num_classes)

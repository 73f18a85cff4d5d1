"""ShuffleNet (Zhang et al. 2018) with three groups, for images of 32x32.

State-dict keys, features and arithmetic are those of mdistiller/models/cifar/ShuffleNetv1.py: a 1x1 stem without
pooling, and a ReLU behind the depthwise convolution.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from distillbench.models.network import Network
from distillbench.models.shuffling import shuffled

name = "shufflenetv1"
version = 1
bibtex = """
@inproceedings{zhang2018shufflenet,
  title = {{ShuffleNet}: An Extremely Efficient Convolutional Neural Network for Mobile Devices},
  author = {Zhang, Xiangyu and Zhou, Xinyu and Lin, Mengxiao and Sun, Jian},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages = {6848--6856},
  year = {2018}
}"""
networks = {"ShuffleV1": {"groups": 3, "widths": (24, 240, 480, 960), "depths": (4, 8, 4)}}


class Block(nn.Module):
    """It returns what is before its last ReLU; with a stride its shortcut, a pooling, stands beside the branch."""

    def __init__(self, in_channels, out_channels, stride, groups, first):
        """first: whether it follows the stem, which has too few channels for groups."""
        super().__init__()
        out_channels -= in_channels if stride == 2 else 0
        channels, self.groups, self.stride = out_channels // 4, 1 if first else groups, stride
        self.conv1 = nn.Conv2d(in_channels, channels, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        out = shuffled(F.relu(self.bn1(self.conv1(x))), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        if self.stride == 1:
            return out + x
        return torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1)


class ShuffleNet(Network):
    head = "linear"

    def __init__(self, groups, widths, depths, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                Block(widths[i], widths[i + 1], 2, groups, first=i == 0),
                *(Block(widths[i + 1], widths[i + 1], 1, groups, first=False) for _ in range(depth - 1)),
            )
            for i, depth in enumerate(depths)
        )
        self.linear = nn.Linear(widths[-1], num_classes)

    def extract(self, x):
        stem = x = F.relu(self.bn1(self.conv1(x)))
        feats, preact_feats = [stem], [stem]
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                preact = block(x)
                x = F.relu(preact)
            feats.append(x)
            preact_feats.append(preact)
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return {"feats": feats, "preact_feats": preact_feats, "pooled_feat": pooled}


def build(num_classes, groups, widths, depths):
    return ShuffleNet(groups, widths, depths, num_classes)

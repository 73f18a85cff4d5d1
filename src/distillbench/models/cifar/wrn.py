"""Wide residual networks (Zagoruyko, Komodakis 2016) as mdistiller/models/cifar/wrn.py has them.

State-dict keys, features and arithmetic are the published ones. That includes a peculiarity: the
pre-activation features apply the next batch normalisation a second time, so that in training mode the running
statistics of those three layers are updated twice a step.
"""

import math

import torch.nn as nn
import torch.nn.functional as F

from distillbench.models.network import Network

name = "wrn"
version = 1
bibtex = """
@inproceedings{zagoruyko2016wide,
  title = {Wide Residual Networks},
  author = {Zagoruyko, Sergey and Komodakis, Nikos},
  booktitle = {British Machine Vision Conference},
  year = {2016}
}"""
networks = {
    "wrn_16_1": {"depth": 16, "factor": 1},
    "wrn_16_2": {"depth": 16, "factor": 2},
    "wrn_40_1": {"depth": 40, "factor": 1},
    "wrn_40_2": {"depth": 40, "factor": 2},
}


class BasicBlock(nn.Module):
    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.convShortcut = None
        if in_channels != channels:
            self.convShortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x):
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class Stage(nn.Module):
    def __init__(self, in_channels, channels, blocks, stride):
        super().__init__()
        first = BasicBlock(in_channels, channels, stride)
        self.layer = nn.Sequential(first, *(BasicBlock(channels, channels, stride=1) for _ in range(blocks - 1)))

    def forward(self, x):
        return self.layer(x)


class WideResNet(Network):
    def __init__(self, depth, factor, num_classes):
        super().__init__()
        blocks = (depth - 4) // 6
        widths = [16, 16 * factor, 32 * factor, 64 * factor]
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.block1 = Stage(widths[0], widths[1], blocks, stride=1)
        self.block2 = Stage(widths[1], widths[2], blocks, stride=2)
        self.block3 = Stage(widths[2], widths[3], blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        nn.init.zeros_(self.fc.bias)

    def extract(self, images):
        (stem, first, second, third), pooled = self._maps(images)
        preact_feats = [
            stem,
            self.block2.layer[0].bn1(first),
            self.block3.layer[0].bn1(second),
            self.bn1(third),
        ]
        return {"feats": [stem, first, second, third], "preact_feats": preact_feats, "pooled_feat": pooled}

    def logits(self, images):
        _, pooled = self._maps(images)
        return self.fc(pooled)

    def _maps(self, images):
        """(maps of stem and stages, pooled features)"""
        stem = self.conv1(images)
        first = self.block1(stem)
        second = self.block2(first)
        third = self.block3(second)
        pooled = F.adaptive_avg_pool2d(F.relu(self.bn1(third)), 1).flatten(1)
        return [stem, first, second, third], pooled


def build(num_classes, depth, factor):
    return WideResNet(depth, factor, num_classes)

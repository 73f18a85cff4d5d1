"""The CIFAR residual networks of the distillation literature (He et al. 2016, section 4.2, as in RepDistiller).

State-dict keys, features and arithmetic are those of mdistiller/models/cifar/resnet.py. The published pooling
of 8x8 maps is adaptive here: the same for 32x32 images, and other sizes work.
"""

import torch.nn as nn
import torch.nn.functional as F

name = "resnet"
version = 1
networks = {
    "resnet8": {"depth": 8, "widths": (16, 16, 32, 64)},
    "resnet14": {"depth": 14, "widths": (16, 16, 32, 64)},
    "resnet20": {"depth": 20, "widths": (16, 16, 32, 64)},
    "resnet32": {"depth": 32, "widths": (16, 16, 32, 64)},
    "resnet44": {"depth": 44, "widths": (16, 16, 32, 64)},
    "resnet56": {"depth": 56, "widths": (16, 16, 32, 64)},
    "resnet110": {"depth": 110, "widths": (16, 16, 32, 64)},
    "resnet8x4": {"depth": 8, "widths": (32, 64, 128, 256)},
    "resnet32x4": {"depth": 32, "widths": (32, 64, 128, 256)},
}


class BasicBlock(nn.Module):
    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        """The block's output before its last ReLU."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return out + (x if self.downsample is None else self.downsample(x))


class ResNet(nn.Module):
    def __init__(self, depth, widths, num_classes):
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[1], blocks, stride=1)
        self.layer2 = _stage(widths[1], widths[2], blocks, stride=2)
        self.layer3 = _stage(widths[2], widths[3], blocks, stride=2)
        self.fc = nn.Linear(widths[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        stem = x = F.relu(self.bn1(self.conv1(x)))
        feats, preact_feats = [stem], [stem]
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                preact = block(x)
                x = F.relu(preact)
            feats.append(x)
            preact_feats.append(preact)
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.fc(pooled), {"feats": feats, "preact_feats": preact_feats, "pooled_feat": pooled}


def _stage(in_channels, channels, blocks, stride):
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, stride=1) for _ in range(blocks - 1)))


def build(num_classes, depth, widths):
    return ResNet(depth, widths, num_classes)

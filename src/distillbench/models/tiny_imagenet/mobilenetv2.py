"""MobileNetV2 (Sandler et al. 2018) for images of 64x64.

State-dict keys, features and arithmetic are those of mdistiller/models/cifar/mv2_tinyimagenet.py: a 1x1 stem whose
padding makes maps of 66x66, convolutions with biases, and a 1x1 convolution as the classifier, so that "pooled_feat" is
[N, 1280, 1, 1]. "preact_feats", which the published network lacks, differ from "feats" in the last map alone, the only
one behind a ReLU6.
"""

import torch.nn as nn
import torch.nn.functional as F

from distillbench.models.mobile import InvertedResidual, inverted_residuals, normalised
from distillbench.models.network import Network

name = "mobilenetv2"
version = 1
bibtex = """
@inproceedings{sandler2018mobilenetv2,
  title = {{MobileNetV2}: Inverted Residuals and Linear Bottlenecks},
  author = {Sandler, Mark and Howard, Andrew and Zhu, Menglong and Zhmoginov, Andrey and Chen, Liang-Chieh},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages = {4510--4520},
  year = {2018}
}"""
networks = {"MobileNetV2": {"expansion": 6}}
OPTIONS = {"activation": nn.ReLU6, "bias": True}


class MobileNetV2(Network):
    head = "conv2"

    def __init__(self, expansion, num_classes):
        super().__init__()

        def stage(*arguments):
            return nn.Sequential(*inverted_residuals(*arguments, expansion, "residual", **OPTIONS))

        self.pre = nn.Sequential(*normalised(3, 32, 1, padding=1, **OPTIONS))
        self.stage1 = InvertedResidual(32, 16, 1, 1, "residual", **OPTIONS)
        self.stage2 = stage(16, 24, 2, 2)
        self.stage3 = stage(24, 32, 3, 2)
        self.stage4 = stage(32, 64, 4, 2)
        self.stage5 = stage(64, 96, 3, 1)
        self.stage6 = stage(96, 160, 3, 1)
        self.stage7 = InvertedResidual(160, 320, 1, expansion, "residual", **OPTIONS)
        self.conv1 = nn.Sequential(*normalised(320, 1280, 1, **OPTIONS)[:-1])  # its ReLU6 is in `forward`
        self.conv2 = PixelClassifier(1280, num_classes)

    def extract(self, x):
        stem = self.pre(x)
        second = self.stage2(self.stage1(stem))
        third = self.stage3(second)
        fourth = self.stage4(third)
        preact = self.conv1(self.stage7(self.stage6(self.stage5(fourth))))
        last = F.relu6(preact)
        pooled = F.adaptive_avg_pool2d(last, 1)
        maps = [stem, second, third, fourth]
        return {"feats": [*maps, last], "preact_feats": [*maps, preact], "pooled_feat": pooled}


class PixelClassifier(nn.Linear):
    """A linear layer on maps [N, D, 1, 1] whose weights have the shape of a 1x1 convolution, [C, D, 1, 1]."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.weight = nn.Parameter(self.weight.detach()[:, :, None, None])

    def forward(self, x):
        return F.linear(x.flatten(1), self.weight.flatten(1), self.bias)


def build(num_classes, expansion):
    return MobileNetV2(expansion, num_classes)

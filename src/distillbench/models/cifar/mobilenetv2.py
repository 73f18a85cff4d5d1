"""MobileNetV2 (Sandler et al. 2018) of half the width, for images of 32x32.

State-dict keys, features and arithmetic are those of mdistiller/models/cifar/mobilenetv2.py: ReLU in place of ReLU6,
and 1 280 channels before the classifier whatever the width. Its maps are those between the inverted residuals, behind
which there is no ReLU: "preact_feats", which the published network lacks, are the same maps.
"""

import torch.nn as nn
import torch.nn.functional as F

from distillbench.models.drawing import draw_classifier, draw_convolutions
from distillbench.models.mobile import inverted_residuals, normalised
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
networks = {"MobileNetV2": {"width": 0.5, "expansion": 6}}
STAGES = (  # channels at full width, number of blocks, stride of the first; the first stage has no expansion
    (16, 1, 1),
    (24, 2, 1),
    (32, 3, 2),
    (64, 4, 2),
    (96, 3, 1),
    (160, 3, 2),
    (320, 1, 1),
)
SEEN = (1, 2, 4, 6)  # stages whose output is a feature
LAST = 1280


class MobileNetV2(Network):
    head = "classifier"

    def __init__(self, width, expansion, num_classes):
        super().__init__()
        channels = int(32 * width)
        self.conv1 = nn.Sequential(*normalised(3, channels, 3, stride=2, padding=1))
        self.blocks = nn.ModuleList()
        for i, (full, number, stride) in enumerate(STAGES):
            stage = inverted_residuals(channels, int(full * width), number, stride, expansion if i else 1, "conv")
            self.blocks.append(nn.Sequential(*stage))
            channels = int(full * width)
        self.conv2 = nn.Sequential(*normalised(channels, LAST, 1))
        self.classifier = nn.Sequential(nn.Linear(LAST, num_classes))
        draw_convolutions(self)
        draw_classifier(self.classifier[0])

    def extract(self, x):
        x = self.conv1(x)
        feats = [x]
        for i, stage in enumerate(self.blocks):
            x = stage(x)
            if i in SEEN:
                feats.append(x)
        pooled = F.adaptive_avg_pool2d(self.conv2(x), 1).flatten(1)
        return {"feats": feats, "preact_feats": list(feats), "pooled_feat": pooled}


def build(num_classes, width, expansion):
    return MobileNetV2(width, expansion, num_classes)

"""VGG networks (Simonyan, Zisserman 2015) with batch normalisation, for small images.

State-dict keys, features and arithmetic are those of mdistiller/models/cifar/vgg.py: five blocks, the last two on maps
of one size, and a single linear layer behind an average over the map.
"""

import torch.nn as nn
import torch.nn.functional as F

from distillbench.models.drawing import draw_classifier, draw_convolutions
from distillbench.models.network import Network

name = "vgg"
version = 1
bibtex = """
@inproceedings{simonyan2015very,
  title = {Very Deep Convolutional Networks for Large-Scale Image Recognition},
  author = {Simonyan, Karen and Zisserman, Andrew},
  booktitle = {International Conference on Learning Representations},
  year = {2015}
}"""
networks = {
    "vgg8": {"depths": (1, 1, 1, 1, 1)},
    "vgg11": {"depths": (1, 1, 2, 2, 2)},
    "vgg13": {"depths": (2, 2, 2, 2, 2)},
    "vgg16": {"depths": (2, 2, 3, 3, 3)},
    "vgg19": {"depths": (2, 2, 4, 4, 4)},
}
WIDTHS = (64, 128, 256, 512, 512)


class VGG(Network):
    head = "classifier"

    def __init__(self, depths, num_classes):
        super().__init__()
        channels = 3
        for i, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            layers = []
            for _ in range(depth):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            self.add_module(f"block{i}", nn.Sequential(*layers[:-1]))  # the last ReLU is in `forward`
        self.classifier = nn.Linear(channels, num_classes)
        draw_convolutions(self)
        draw_classifier(self.classifier)

    def extract(self, x):
        feats, preact_feats = [], []
        halved = (1, 2, 3, 4) if x.shape[2] == 64 else (1, 2, 3)  # as published
        for i in range(len(WIDTHS)):
            if i in halved:
                x = F.max_pool2d(x, 2)
            preact = getattr(self, f"block{i}")(x)
            x = F.relu(preact)
            feats.append(x)
            preact_feats.append(preact if i else x)
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return {"feats": feats, "preact_feats": preact_feats, "pooled_feat": pooled}


def build(num_classes, depths):
    return VGG(depths, num_classes)

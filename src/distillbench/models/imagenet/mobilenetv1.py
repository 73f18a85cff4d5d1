"""MobileNet (Howard et al. 2017) of full width.

State-dict keys, features and arithmetic are those of mdistiller/models/imagenet/mobilenetv1.py. Its published maps
begin with the first stage; the one before, which other networks have as the first of theirs, is the entry "stem".
"""

import torch.nn as nn
import torch.nn.functional as F

from distillbench.models.mobile import depthwise, normalised
from distillbench.models.network import Network

name = "mobilenetv1"
version = 1
bibtex = """
@article{howard2017mobilenets,
  title = {{MobileNets}: Efficient Convolutional Neural Networks for Mobile Vision Applications},
  author = {Howard, Andrew G. and Zhu, Menglong and Chen, Bo and Kalenichenko, Dmitry and Wang, Weijun and
            Weyand, Tobias and Andreetto, Marco and Adam, Hartwig},
  journal = {arXiv preprint arXiv:1704.04861},
  year = {2017}
}"""
networks = {"MobileNetV1": {}}
BLOCKS = (  # channels and stride of each depthwise separable convolution
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)
LAST_OF_STAGES = (3, 5, 11, 13)  # places in `model`, where the next has a stride or there is none


class MobileNetV1(Network):
    def __init__(self, num_classes):
        super().__init__()
        blocks, channels = [normalised(3, 32, 3, stride=2, padding=1)], 32
        for width, stride in BLOCKS:
            blocks.append(depthwise(channels, stride) + normalised(channels, width, 1))
            channels = width
        self.model = nn.Sequential(*(nn.Sequential(*layers[:-1]) for layers in blocks))  # last ReLUs are in `forward`
        self.fc = nn.Linear(channels, num_classes)

    def extract(self, x):
        feats, preact_feats = [], []
        for i, block in enumerate(self.model):
            preact = block(x)
            x = F.relu(preact)
            if i == 1:
                stem = x
            if i in LAST_OF_STAGES:
                feats.append(x)
                preact_feats.append(preact)
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return {"feats": feats, "preact_feats": preact_feats, "pooled_feat": pooled, "stem": stem}


def build(num_classes):
    return MobileNetV1(num_classes)

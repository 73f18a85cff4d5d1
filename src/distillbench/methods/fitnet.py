"""FITNET: hints (Romero et al., FitNets, ICLR 2015, arXiv:1412.6550, eq. 3).

    loss = CE_WEIGHT * CE(z_s, y) + FEAT_WEIGHT * mean((r(f_s) - f_t)^2)

f are the maps of HINT_LAYER (0: the stem), r a regressor that is trained with the student: a convolution, batch norm
and ReLU. Its kernel is 3x3 with stride 2 where the student's maps are twice the teacher's, transposed 4x4 with stride 2
where they are half of them, else without padding and as large as takes the one size to the other. As in RepDistiller
both losses are trained together, from the first epoch on; the paper trains the hint first.

OFFICIAL mdistiller: batch statistics of both networks begin a tenth of the way to those of an image of noise, and
HINT_LAYER counts in the published lists: MobileNetV1's has no stem.
"""

import torch.nn as nn
import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.errors import UserError
from distillbench.methods.features import FeatureMethod, see_noise


class Regressor(nn.Module):
    """From maps of a shape [N, C, H, W] to maps of another."""

    def __init__(self, student, teacher):
        super().__init__()
        self.conv = _convolution(student, teacher)
        self.bn = nn.BatchNorm2d(teacher[1])

    def forward(self, maps):
        return F.relu(self.bn(self.conv(maps)))


def _convolution(student, teacher):
    """The layer from maps of the student's shape to maps of the teacher's."""
    channels, here, there = (student[1], teacher[1]), student[2:], teacher[2:]
    if all(s == 2 * t for s, t in zip(here, there, strict=True)):
        return nn.Conv2d(*channels, 3, stride=2, padding=1)
    if all(t == 2 * s for s, t in zip(here, there, strict=True)):
        return nn.ConvTranspose2d(*channels, 4, stride=2, padding=1)
    kernel = [1 + abs(s - t) for s, t in zip(here, there, strict=True)]
    return (nn.Conv2d if here >= there else nn.ConvTranspose2d)(*channels, kernel)


class FitNet(FeatureMethod):
    name = "FITNET"
    version = 1
    teacher = "network"
    keys = {
        "HINT_LAYER": Key(2, "the maps that are matched, by their place in the features; 0 is the stem", minimum=0),
        "INPUT_SIZE": Key(
            [32, 32],
            "published key, without effect: size of an image",
            minimum=1,
            identity=False,
            why="the shapes come from the networks",
        ),
        "LOSS.CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "LOSS.FEAT_WEIGHT": Key(100.0, "weight of the hint", minimum=0),
        "OFFICIAL": Key(
            "paper",
            "mdistiller: the running statistics of both networks begin a tenth of the way to those of a noise image",
            choices=("paper", "mdistiller"),
        ),
    }
    bibtex = """\
@inproceedings{romero2015fitnets,
  title = {{FitNets}: Hints for Thin Deep Nets},
  author = {Romero, Adriana and Ballas, Nicolas and Kahou, Samira Ebrahimi and Chassang, Antoine and Gatta, Carlo and
            Bengio, Yoshua},
  booktitle = {International Conference on Learning Representations},
  year = {2015},
}
"""

    def __init__(self, hyperparameters, context):
        super().__init__(hyperparameters, context)
        self.layer, self.official = hyperparameters["HINT_LAYER"], hyperparameters["OFFICIAL"] == "mdistiller"
        maps = [self._maps(output) for output in (context.student, context.teacher)]
        if self.layer >= (number := min(map(len, maps))):
            problem = f"the networks have {number} maps in common, must be at most {number - 1}"
            raise UserError(f"FITNET.HINT_LAYER {self.layer}: {problem}")
        self.conv_reg = Regressor(*(side[self.layer].shape for side in maps))
        if self.official:
            see_noise(context)

    def distillation_loss(self, student, teacher, batch, schedule):
        s, t = (self._maps(output)[self.layer] for output in (student, teacher))
        return F.mse_loss(self.conv_reg(s), t)

    def _maps(self, output):
        return output.features["feats"] if self.official else output.maps()

"""VID: variational information distillation (Ahn, Hu, Damianou, Lawrence, Dai, CVPR 2019, arXiv:1904.05835, eq. 5).

    loss = CE_WEIGHT * CE(z_s, y) + FEAT_WEIGHT * sum over stages of mean(((t - mu(s))^2 / v + log v) / 2)

s and t are the maps of a stage, the larger averaged down to the size of the smaller; mu is three 1x1 convolutions with
ReLUs between them. v = log(1 + exp(a)) + EPS is a variance for each of the teacher's channels; it learns with the
student, from INIT_PRED_VAR on. The stages are those behind the stem, paired from the deepest on. The mean in place of
the paper's sum is RepDistiller's, for which the weight is published.

OFFICIAL mdistiller: the variances never learn, in single precision; both networks have seen noise, as in FITNET; stages
are paired as in AT.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.errors import UserError
from distillbench.methods.features import FeatureMethod, at_one_size, see_noise, stages


class VID(FeatureMethod):
    name = "VID"
    version = 1
    teacher = "network"
    keys = {
        "LOSS.CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "LOSS.FEAT_WEIGHT": Key(1.0, "weight of the loss on the maps", minimum=0),
        "EPS": Key(1e-5, "the smallest variance", above=0),
        "INIT_PRED_VAR": Key(5.0, "the variance of every channel at the beginning; more than EPS", above=0),
        "INPUT_SIZE": Key(
            [32, 32],
            "published key, without effect: size of an image",
            minimum=1,
            identity=False,
            why="the shapes come from the networks",
        ),
        "OFFICIAL": Key(
            "paper",
            "mdistiller: the variances never learn, and the running statistics of both networks start as in FITNET",
            choices=("paper", "mdistiller"),
        ),
    }
    bibtex = """\
@inproceedings{ahn2019vid,
  title = {Variational Information Distillation for Knowledge Transfer},
  author = {Ahn, Sungsoo and Hu, Shell Xu and Damianou, Andreas and Lawrence, Neil D. and Dai, Zhenwen},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages = {9163--9171},
  year = {2019},
}
"""

    def __init__(self, hyperparameters, context):
        super().__init__(hyperparameters, context)
        self.official = hyperparameters["OFFICIAL"] == "mdistiller"
        if self.official:
            see_noise(context)
        pairs = [(s.shape[1], t.shape[1]) for s, t in self.pairs(context.student, context.teacher)]
        self.regressors = nn.ModuleList(_regressor(*channels) for channels in pairs)
        scales = (torch.full((channels,), self._first_scale()) for _, channels in pairs)
        self.log_scales = nn.ParameterList(nn.Parameter(scale, not self.official) for scale in scales)

    def _first_scale(self):
        """The scale whose variance is INIT_PRED_VAR."""
        learnt = self.hyperparameters["INIT_PRED_VAR"] - self.hyperparameters["EPS"]
        if learnt <= 0:
            raise UserError(f"VID.INIT_PRED_VAR must be more than VID.EPS, {self.hyperparameters['EPS']:g}")
        return learnt + math.log(-math.expm1(-learnt))

    def pairs(self, student, teacher):
        return stages(student, teacher, self.hyperparameters["OFFICIAL"])

    def distillation_loss(self, student, teacher, batch, schedule):
        total = 0
        for i, (maps, regressor) in enumerate(zip(self.pairs(student, teacher), self.regressors, strict=True)):
            s, t = at_one_size(*maps)
            variance = self.variance(i).to(t.dtype)[:, None, None]
            total = total + ((regressor(s) - t) ** 2 / variance + variance.log()).mean() / 2
        return total

    def variance(self, stage):
        """v of a stage's channels, [D]; the official code has it in single precision whatever the networks have."""
        scale = self.log_scales[stage]
        if self.official:
            return torch.log(1 + torch.exp(scale.float())) + self.hyperparameters["EPS"]
        return F.softplus(scale) + self.hyperparameters["EPS"]


def _regressor(student, teacher):
    """From maps of `student` channels to the means of the teacher's."""
    first, second, third = (nn.Conv2d(n, teacher, 1, bias=False) for n in (student, teacher, teacher))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

"""REVIEWKD: knowledge review (Chen, Liu, Zhao, Jia, CVPR 2021, arXiv:2104.09044, section 3.3).

    loss = CE_WEIGHT * CE(z_s, y) + min(epoch / WARMUP_EPOCHS, 1) * REVIEWKD_WEIGHT * sum over levels of HCL(u_i, t_i)

The levels are the pooled features, as maps of one pixel, and the maps of each stage from the deepest on: t_i before the
ReLU, s_i behind it (before it with STU_PREACT). Attention-based fusion (ABF) takes the student's level and what the
fusion of the deeper one left:

    x = norm(conv1x1(s_i));  a, b = sigmoid(conv1x1([x, residual]));  residual = a * x + b * residual
    u_i = norm(conv3x3(residual))

with the residual brought to the size of x, and then to that of t_i, by nearest neighbours. The hierarchical context
loss, HCL, is the weighted mean of mean squared differences of both maps: as they are, weight 1, and averaged down to 4,
2 and 1 pixels, as far as that is less, each with half the weight of the one before.

The channels between the two convolutions are those of the student's pooled features, at most MAX_MID_CHANNEL. OFFICIAL
mdistiller: at most 512 whatever MAX_MID_CHANNEL says; and the student's levels are all of its published maps, with the
stem where there are as many of the teacher.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.errors import UserError
from distillbench.methods.features import FeatureMethod, averaged_to


class ReviewKD(FeatureMethod):
    name = "REVIEWKD"
    version = 1
    teacher = "network"
    ce_weight = "CE_WEIGHT"
    feature_weight = "REVIEWKD_WEIGHT"
    keys = {
        "CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "REVIEWKD_WEIGHT": Key(1.0, "weight of the loss on the maps", minimum=0),
        "WARMUP_EPOCHS": Key(20, "epochs over which the distillation loss grows linearly; 0: none", minimum=0),
        "MAX_MID_CHANNEL": Key(512, "channels between the convolutions of a fusion, at most", minimum=1),
        "STU_PREACT": Key(False, "take the student's maps before the ReLU, too"),
        "SHAPES": Key(
            [1, 8, 16, 32],
            "published key, without effect: sizes of the student's maps",
            minimum=1,
            identity=False,
            why="the shapes come from the networks",
        ),
        "OUT_SHAPES": Key(
            [1, 8, 16, 32],
            "published key, without effect: sizes of the teacher's maps",
            minimum=1,
            identity=False,
            why="the shapes come from the networks",
        ),
        "IN_CHANNELS": Key(
            [64, 128, 256, 256],
            "published key, without effect: channels of the student's maps",
            minimum=1,
            identity=False,
            why="the shapes come from the networks",
        ),
        "OUT_CHANNELS": Key(
            [64, 128, 256, 256],
            "published key, without effect: channels of the teacher's maps",
            minimum=1,
            identity=False,
            why="the shapes come from the networks",
        ),
        "OFFICIAL": Key(
            "paper",
            "mdistiller: MAX_MID_CHANNEL is 512 whatever is given, the student's stem may be a level",
            choices=("paper", "mdistiller"),
        ),
    }
    bibtex = """\
@inproceedings{chen2021reviewkd,
  title = {Distilling Knowledge via Knowledge Review},
  author = {Chen, Pengguang and Liu, Shu and Zhao, Hengshuang and Jia, Jiaya},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages = {5008--5017},
  year = {2021},
}
"""

    def __init__(self, hyperparameters, context):
        super().__init__(hyperparameters, context)
        self.official = hyperparameters["OFFICIAL"] == "mdistiller"
        levels = self.levels(context.student, context.teacher)
        middle = min(512 if self.official else hyperparameters["MAX_MID_CHANNEL"], levels[0][0].shape[1])
        self.abfs = nn.ModuleList(Fusion(s.shape[1], middle, t.shape[1], fuse=i > 0) for i, (s, t) in enumerate(levels))

    def schedule(self, epoch):
        """The published warm-up, as of `LogitMethod`."""
        length = self.hyperparameters["WARMUP_EPOCHS"]
        return {"warmup": min(epoch / length, 1.0) if length else 1.0}

    def levels(self, student, teacher):
        """[(student's, teacher's map)] that belong together, the deepest first."""
        kind = "preact_feats" if self.hyperparameters["STU_PREACT"] else "feats"
        s, t = student.stages(kind), teacher.stages("preact_feats")
        if self.official:
            s, t = student.features[kind], teacher.features["preact_feats"][1:]
        sides = [(student, s), (teacher, t)]
        return list(zip(*([o.pooled[:, :, None, None], *maps[::-1]] for o, maps in sides), strict=False))

    def distillation_loss(self, student, teacher, batch, schedule):
        if len(batch.target) == 1:
            raise UserError("REVIEWKD: a last batch of one image has no statistics; choose another SOLVER.BATCH_SIZE")
        total, residual = 0, None
        for (s, t), fusion in zip(self.levels(student, teacher), self.abfs, strict=True):
            reviewed, residual = fusion(s, residual, t.shape[-2:])
            total = total + hierarchical_context_loss(reviewed, t)
        return schedule["warmup"] * total


class Fusion(nn.Module):
    """ABF. fuse: whether there is a residual to fuse with; the deepest level has none."""

    def __init__(self, in_channels, mid_channels, out_channels, fuse):
        super().__init__()
        self.conv1 = _normalised(in_channels, mid_channels, 1)
        self.conv2 = _normalised(mid_channels, out_channels, 3)
        self.att_conv = nn.Sequential(nn.Conv2d(2 * mid_channels, 2, 1), nn.Sigmoid()) if fuse else None

    def forward(self, x, residual, size):
        """(map [N, out_channels, *size], the residual for the next level) of a map x [N, in_channels, H, W]."""
        x = self.conv1(x)
        if self.att_conv is not None:
            residual = resized(residual, x.shape[-2:])
            attention = self.att_conv(torch.cat([x, residual], dim=1))
            x = x * attention[:, :1] + residual * attention[:, 1:]
        x = resized(x, size)
        return self.conv2(x), x


def resized(map, size):
    """A map [N, D, H, W] at another (height, width), by nearest neighbours."""
    if map.shape[-2:] == size:
        return map
    if map.shape[-2:] == (1, 1):  # `interpolate` leaves the memory format of its gradient open, and the order of sums
        return map.expand(-1, -1, *size)
    return F.interpolate(map, size, mode="nearest")


def hierarchical_context_loss(student, teacher):
    """HCL of two maps [N, D, H, W] of one size: 0-d."""
    total, weights, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size < student.shape[-2]:
            weight /= 2
            total = total + weight * F.mse_loss(*(averaged_to(map, size, size) for map in (student, teacher)))
            weights += weight
    return total / weights


def _normalised(in_channels, out_channels, size):
    layer = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=False)
    nn.init.kaiming_uniform_(layer.weight, a=1)
    return nn.Sequential(layer, nn.BatchNorm2d(out_channels))

"""OFD: an overhaul of feature distillation (Heo, Kim, Yun, Park, Kwak, Choi, ICCV 2019, arXiv:1904.01866, section 3).

    loss = CE_WEIGHT * CE(z_s, y) + FEAT_WEIGHT * sum over stages i < n of d(max(t_i, m_i), r_i(s_i)) / 2^(n - 1 - i)

s_i and t_i are the maps of a stage before its ReLU, the deepest of both being n - 1; the larger is averaged down to the
size of the smaller. r_i is a convolution and a batch normalisation, which learn with the student. d is the partial L2
distance: the sum over channels and places of (t - s)^2, or 0 where s <= t <= 0, averaged over the batch. The margin m
of a channel is the mean of its negative values, as if all were normally distributed with the bias and the weight of the
teacher's batch normalisation as mean and standard deviation:

    m = mean - std * phi(mean / std) / Phi(-mean / std), or -3 std where less than a thousandth is negative

The latter is from the authors' code, in which the teacher normalises with the statistics of the batch (table 8); here
with its own.

OFFICIAL mdistiller: the teacher normalises with the statistics of the batch, its own stay what they are; its maps are
brought to the student's size where they are smaller, too; networks whose published maps have no stem do without their
first stage.
"""

import math
from contextlib import contextmanager

import torch
import torch.nn as nn

from distillbench.config.keys import Key
from distillbench.errors import UserError
from distillbench.methods.features import FeatureMethod, at_one_size, averaged_to


class OFD(FeatureMethod):
    name = "OFD"
    version = 1
    teacher = "network"
    keys = {
        "LOSS.CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "LOSS.FEAT_WEIGHT": Key(1e-3, "weight of the distance of the maps", minimum=0),
        "CONNECTOR.KERNEL_SIZE": Key(1, "height and width of the convolution behind a student's map; odd", minimum=1),
        "OFFICIAL": Key(
            "paper",
            "mdistiller: the teacher normalises with the statistics of the batch, its maps get the student's size",
            choices=("paper", "mdistiller"),
        ),
    }
    bibtex = """\
@inproceedings{heo2019overhaul,
  title = {A Comprehensive Overhaul of Feature Distillation},
  author = {Heo, Byeongho and Kim, Jeesoo and Yun, Sangdoo and Park, Hyojin and Kwak, Nojun and Choi, Jin Young},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  pages = {1921--1930},
  year = {2019},
}
"""

    def __init__(self, hyperparameters, context):
        super().__init__(hyperparameters, context)
        self.official = hyperparameters["OFFICIAL"] == "mdistiller"
        pairs, size = self.pairs(context.student, context.teacher), hyperparameters["CONNECTOR.KERNEL_SIZE"]
        norms = context.teacher_bn[-len(pairs) :]
        if None in norms:
            stage = len(context.teacher_bn) - len(pairs) + norms.index(None) + 1
            problem = "ends in no batch normalisation, whose weight and bias give the margin"
            raise UserError(f"OFD: stage {stage} of the teacher {problem}; choose another teacher or method")
        self.connectors = Connectors([(s.shape[1], t.shape[1]) for s, t in pairs], size)
        for i, (weight, bias) in enumerate(norms):
            self.register_buffer(f"margin_{i}", margin(bias, weight).float(), persistent=False)

    def pairs(self, student, teacher):
        """The maps [(student's, teacher's)] that belong together, the deepest last."""
        maps = [self._maps(output) for output in (student, teacher)]
        number = min(map(len, maps))
        return list(zip(*(stages[-number:] for stages in maps), strict=True))

    def _maps(self, output):
        return output.features["preact_feats"][1:] if self.official else output.stages("preact_feats")

    def forward(self, student, teacher, batch, schedule):
        with normalising_by_batch(self.context.teacher_network if self.official else None):
            return super().forward(student, teacher, batch, schedule)

    def distillation_loss(self, student, teacher, batch, schedule):
        total, pairs = 0, self.pairs(student, teacher)
        for i, ((s, t), connector) in enumerate(zip(pairs, self.connectors.connectors, strict=True)):
            s = connector(s)
            s, t = (s, averaged_to(t, *s.shape[2:])) if self.official else at_one_size(s, t)
            t = torch.maximum(t, getattr(self, f"margin_{i}").to(t.dtype)[:, None, None])
            total = total + partial_distance(s, t) / 2 ** (len(pairs) - 1 - i)
        return total


class Connectors(nn.Module):
    """Convolutions with a batch normalisation from the student's channels to the teacher's, a stage each."""

    def __init__(self, channels, kernel_size):
        super().__init__()
        self.connectors = nn.ModuleList()
        for student, teacher in channels:
            layer = nn.Conv2d(student, teacher, kernel_size, padding=(kernel_size - 1) // 2, bias=False)
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / (kernel_size**2 * teacher)))
            self.connectors.append(nn.Sequential(layer, nn.BatchNorm2d(teacher)))


def margin(mean, deviation):
    """The mean of the negative values of a normal distribution, by channel. A deviation counts by its size.

    A channel that never varies has itself, where that is negative, and else 0.
    """
    mean, deviation = mean.double(), deviation.double().abs()
    z = mean / deviation
    negative = torch.special.ndtr(-z)
    found = mean - deviation * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / negative
    return torch.where(negative > 0.001, found, -3 * deviation)


def partial_distance(student, teacher):
    """The sum of squared differences of maps [N, D, H, W] but for 0 where student <= teacher <= 0, by image: 0-d."""
    counts = (student > teacher) | (teacher > 0)
    return (counts * (student - teacher) ** 2).sum() / len(student)


@contextmanager
def normalising_by_batch(network):
    """Inside, batch normalisations of a network (None: of none) take the batch's statistics and keep their own."""
    layers = [] if network is None else [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for layer in layers:
        layer.training, layer.track_running_stats = True, False
    try:
        yield
    finally:
        for layer in layers:
            layer.training, layer.track_running_stats = False, True

"""KDSVD: self-supervised distillation by singular values (Lee, Kim, Song, ECCV 2018, arXiv:1807.06819, eq. 1 to 7).

    loss = CE_WEIGHT * CE(z_s, y) + FEAT_WEIGHT * sum over neighbouring stages of ||g_s - g_t||^2 / N
    g[c, d, k] = exp(-(v[c, k] - w[d, k])^2 / 8)

v and w are the first K right singular vectors of two neighbouring stages behind the stem, a row a channel: those of the
matrix [H * W, C] of an image's map, each times its share in the norm of the teacher's first K singular values. Of the
student's first K + 3 vectors each of the teacher's takes the one that is most like it, up to the sign.
Student and teacher need the same number of channels.

mdistiller takes the matrix [C * H, W], whose vectors have an entry for each column of the map (`OFFICIAL`). It stops at
maps of two sizes; here the larger is averaged down, so that the loss is defined for every pair. Maps are paired by
their place in the published lists, as in AT.

Singular vectors have no sign of their own. The loss depends on the teacher's between two stages, and libraries differ:
here the sum of each of the teacher's vectors is positive.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.errors import UserError
from distillbench.methods.features import FeatureMethod, at_one_size, stages

SPARE = 3  # vectors of the student beyond K


def singular(matrices, number):
    """(values [N, K], right vectors [N, D, K]) of matrices [N, M, D], the largest first; K at most `number`.

    Vectors have a gradient, by perturbation of first order, values none. What a difference of two values makes is left
    out of the gradient where they are equal, and a library's would be infinite.
    """
    with torch.no_grad():
        values, rows = torch.linalg.svd(matrices, full_matrices=False)[1:]
        basis, first = rows.transpose(1, 2), values[:, None, :number]
        vectors, others = basis[:, :, :number], values[:, :, None]
        gaps = _inverse((first - others) * (first + others), first)
        alone = _inverse(first**2, first)
    moved = matrices.transpose(1, 2) @ (matrices @ vectors)
    change = moved * alone + basis @ ((basis.transpose(1, 2) @ moved) * (gaps - alone))
    return values[:, :number], vectors + (change - change.detach())


def _inverse(differences, values):
    """1 / differences of squared singular values, 0 where these are equal within rounding; values [N, 1, K]."""
    rounding = torch.finfo(values.dtype).eps * values[:, :, :1] ** 2
    return torch.where(differences.abs() > rounding, 1 / differences, 0)


def aligned(vectors, wanted):
    """For each of the wanted vectors [N, D, K] the one of [N, D, L] that is most like it, with its sign."""
    cosines = vectors.detach().transpose(1, 2) @ wanted
    best = cosines.abs().argmax(dim=1, keepdim=True)
    sign = torch.where(cosines.gather(1, best) < 0, -1.0, 1.0)
    return sign * vectors.gather(2, best.expand(-1, vectors.shape[1], -1))


def relations(vectors, deeper):
    """g [N, C, D, K] of vectors [N, C, K] and [N, D, K] of the next stage."""
    return torch.exp(-((vectors[:, :, None] - deeper[:, None]) ** 2) / 8)


class KDSVD(FeatureMethod):
    name = "KDSVD"
    version = 1
    teacher = "network"
    capturable = False  # the decomposition reads back whether it has converged
    keys = {
        "K": Key(1, "singular vectors of a stage", minimum=1),
        "LOSS.CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "LOSS.FEAT_WEIGHT": Key(1.0, "weight of the loss on relations of singular vectors", minimum=0),
        "OFFICIAL": Key(
            "paper",
            "vectors with an entry for each channel (paper), or for each column of the map (mdistiller)",
            choices=("paper", "mdistiller"),
        ),
    }
    bibtex = """\
@inproceedings{lee2018selfsupervised,
  title = {Self-supervised Knowledge Distillation Using Singular Value Decomposition},
  author = {Lee, Seung Hyun and Kim, Dae Ha and Song, Byung Cheol},
  booktitle = {Proceedings of the European Conference on Computer Vision},
  pages = {335--350},
  year = {2018},
}
"""

    def __init__(self, hyperparameters, context):
        super().__init__(hyperparameters, context)
        matrices = self._matrices(context.student, context.teacher)
        sides = [[matrix.shape[2] for matrix in side] for side in zip(*matrices, strict=True)]
        if sides[0] != sides[1]:
            here = "the stages of the student have {} channels, the teacher's {}".format(*sides)
            remedy = "KDSVD.OFFICIAL: mdistiller compares columns of maps, of which both can have as many"
            raise UserError(f"KDSVD: {here}, and it compares channel by channel; {remedy}")
        least = min(min(matrix.shape[1:]) for pair in matrices for matrix in pair)
        if hyperparameters["K"] > least:
            problem = f"a stage has {least} singular vectors, must be at most {least}"
            raise UserError(f"KDSVD.K {hyperparameters['K']}: {problem}")

    def distillation_loss(self, student, teacher, batch, schedule):
        matrices = self._matrices(student, teacher)
        vectors = [self._vectors(*pair, stage) for stage, pair in enumerate(matrices, 1)]
        losses = (relations(s, next_s) - relations(t, next_t) for (s, t), (next_s, next_t) in pairwise(vectors))
        return sum(difference.pow(2).sum() for difference in losses) / len(vectors[0][0])

    def _matrices(self, student, teacher):
        """[(student's, teacher's)] of each stage, matrices [N, M, D] whose right vectors are compared."""
        pairs = stages(student, teacher, official := self.hyperparameters["OFFICIAL"])
        if official == "mdistiller":
            return [[maps.flatten(1, 2) for maps in at_one_size(*pair)] for pair in pairs]
        return [[maps.flatten(2).transpose(1, 2) for maps in pair] for pair in pairs]

    def _vectors(self, matrices_student, matrices_teacher, stage):
        """Weighted vectors [N, D, K] of the student's and the teacher's stage, the student's aligned."""
        number = self.hyperparameters["K"]
        values, t = singular(matrices_teacher, number)
        t, weights = self.oriented(t, stage), F.normalize(values)[:, None]
        s = aligned(singular(matrices_student, number + SPARE)[1], t)
        return s * weights, t * weights

    def oriented(self, vectors, stage):
        """Vectors [N, D, K] of the teacher in a stage (1: the first behind the stem), with signs of our choice."""
        return torch.where(vectors.sum(dim=1, keepdim=True) < 0, -vectors, vectors)

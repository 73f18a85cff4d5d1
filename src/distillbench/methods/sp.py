"""SP: similarity-preserving distillation (Tung, Mori, ICCV 2019, arXiv:1907.09682, eq. 4).

    loss = CE_WEIGHT * CE(z_s, y) + FEAT_WEIGHT * ||G_s - G_t||_F^2 / N^2

G [N, N] is f f^T of the maps of the last stage, an image a row of f, with each of its rows scaled to unit norm.
"""

import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.methods.features import FeatureMethod


def similarities(features):
    """[N, N] of features [N, D], rows of unit norm."""
    return F.normalize(features @ features.T)


class SP(FeatureMethod):
    name = "SP"
    version = 1
    teacher = "network"
    reads = ("feats",)
    keys = {
        "LOSS.CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "LOSS.FEAT_WEIGHT": Key(3000.0, "weight of the loss on similarities", minimum=0),
    }
    bibtex = """\
@inproceedings{tung2019similarity,
  title = {Similarity-Preserving Knowledge Distillation},
  author = {Tung, Frederick and Mori, Greg},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  pages = {1365--1374},
  year = {2019},
}
"""

    def distillation_loss(self, student, teacher, batch, schedule):
        maps = (output.features["feats"][-1].flatten(1) for output in (student, teacher))
        return F.mse_loss(*map(similarities, maps))

"""PKT: probabilistic knowledge transfer (Passalis, Tefas, ECCV 2018, arXiv:1803.10837, eq. 3 and 6, cosine kernel).

    loss = CE_WEIGHT * CE(z_s, y) + FEAT_WEIGHT * mean over pairs of p_t log(p_t / p_s)

p[n, m] is the similarity (1 + cos) / 2 of the pooled features of images n and m of a batch, divided by the sum of row
n. As in the authors' code the mean is over all N^2 pairs, and EPSILON is added where something is divided by.
"""

import torch

from distillbench.config.keys import Key
from distillbench.methods.features import FeatureMethod

EPSILON = 1e-7


def similarities(features):
    """The distributions [N, N] over the images of a batch, a row an image, of features [N, D]."""
    directions = features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + EPSILON)
    kernel = (directions @ directions.T + 1) / 2
    return kernel / kernel.sum(dim=1, keepdim=True)


class PKT(FeatureMethod):
    name = "PKT"
    version = 1
    teacher = "network"
    reads = ("pooled_feat",)
    keys = {
        "LOSS.CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "LOSS.FEAT_WEIGHT": Key(30000.0, "weight of the divergence", minimum=0),
    }
    bibtex = """\
@inproceedings{passalis2018learning,
  title = {Learning Deep Representations with Probabilistic Knowledge Transfer},
  author = {Passalis, Nikolaos and Tefas, Anastasios},
  booktitle = {Proceedings of the European Conference on Computer Vision},
  pages = {283--299},
  year = {2018},
}
"""

    def distillation_loss(self, student, teacher, batch, schedule):
        s, t = (similarities(output.pooled) for output in (student, teacher))
        return (t * ((t + EPSILON) / (s + EPSILON)).log()).mean()

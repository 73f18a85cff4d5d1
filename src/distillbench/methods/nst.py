"""NST: neuron selectivity transfer (Huang, Wang 2017, arXiv:1707.01219, eq. 7, polynomial kernel with d = 2, c = 0).

    loss = CE_WEIGHT * CE(z_s, y) + FEAT_WEIGHT * sum over stages of MMD^2
    MMD^2 = mean k(t, t') + mean k(s, s') - 2 mean k(s, t),    k(a, b) = (a . b)^2

s and t are the channels of a stage, each flattened over its positions and scaled to unit norm; the means are over all
pairs of channels of an image, and over the batch. The stages are those behind the stem, paired from the deepest on;
where two differ in size the larger is averaged down. OFFICIAL mdistiller: as in AT.
"""

import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.methods.features import StageMethod


def channels(maps):
    """Maps [N, C, H, W] as vectors [N, C, H * W] of unit norm; 0 where a channel is."""
    return F.normalize(maps.flatten(2), dim=2)


def mean_kernel(first, second):
    """The mean, 0-d, of (a . b)^2 over all pairs of vectors [N, C, D] and [N, C', D] of one image, and over images."""
    return (first @ second.transpose(1, 2)).pow(2).mean()


class NST(StageMethod):
    name = "NST"
    version = 1
    teacher = "network"
    keys = {
        "LOSS.CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "LOSS.FEAT_WEIGHT": Key(50.0, "weight of the discrepancy", minimum=0),
        "OFFICIAL": Key(
            "paper",
            "which maps belong together: stages from the deepest on (paper), or by their place in the published lists",
            choices=("paper", "mdistiller"),
        ),
    }
    bibtex = """\
@article{huang2017like,
  title = {Like What You Like: Knowledge Distill via Neuron Selectivity Transfer},
  author = {Huang, Zehao and Wang, Naiyan},
  journal = {arXiv preprint arXiv:1707.01219},
  year = {2017},
}
"""

    def stage_loss(self, maps_student, maps_teacher):
        s, t = channels(maps_student), channels(maps_teacher)
        return mean_kernel(t, t) + mean_kernel(s, s) - 2 * mean_kernel(s, t)

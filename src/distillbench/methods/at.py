"""AT: attention transfer (Zagoruyko, Komodakis, ICLR 2017, arXiv:1612.03928, eq. 2, attention maps F_sum^p).

    loss = CE_WEIGHT * CE(z_s, y) + FEAT_WEIGHT * sum over stages of mean((a_s - a_t)^2)

a is the attention map of a stage, the mean of |map|^P over its channels, flattened and scaled to unit norm. The stages
are those behind the stem, paired from the deepest on; where two differ in size the larger is averaged down. The mean
over positions in place of the paper's norm is that of the authors' code, for which the weights are published.

OFFICIAL mdistiller: maps are paired by their place in the published lists, so that those of networks with another
number of stages, and MobileNetV1's, whose list has no stem, meet maps of another depth.
"""

import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.methods.features import StageMethod


def attention(maps, power):
    """The attention [N, H * W] of maps [N, C, H, W], of unit norm; 0 where all of them are."""
    return F.normalize(maps.abs().pow(power).mean(dim=1).flatten(1))


class AT(StageMethod):
    name = "AT"
    version = 1
    teacher = "network"
    keys = {
        "P": Key(2, "power of the activations in an attention map", minimum=1),
        "LOSS.CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "LOSS.FEAT_WEIGHT": Key(1000.0, "weight of the loss on attention maps", minimum=0),
        "OFFICIAL": Key(
            "paper",
            "which maps belong together: stages from the deepest on (paper), or by their place in the published lists",
            choices=("paper", "mdistiller"),
        ),
    }
    bibtex = """\
@inproceedings{zagoruyko2017paying,
  title = {Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks via
           Attention Transfer},
  author = {Zagoruyko, Sergey and Komodakis, Nikos},
  booktitle = {International Conference on Learning Representations},
  year = {2017},
}
"""

    def stage_loss(self, maps_student, maps_teacher):
        power = self.hyperparameters["P"]
        return F.mse_loss(attention(maps_student, power), attention(maps_teacher, power))

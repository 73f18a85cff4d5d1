"""AT: attention transfer (Zagoruyko, Komodakis, ICLR 2017, arXiv:1612.03928, eq. 2, attention maps F_sum^p).

    loss = CE_WEIGHT * CE(z_s, y) + FEAT_WEIGHT * sum over stages of mean((a_s - a_t)^2)

a is the attention map of a stage, the mean of |map|^P over its channels, flattened and scaled to unit norm. The stages
are those behind the stem, paired from the deepest on; where two differ in size the larger is averaged down. The mean
over positions in place of the paper's norm is that of the authors' code, for which the weights are published.

OFFICIAL mdistiller: maps are paired by their place in the published lists, so that those of networks with another
number of stages, and MobileNetV1's, whose list has no stem, meet maps of another depth; and the attention map is the
mean of map^P, in which activations of either sign cancel out where P is odd.
"""

import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.methods.features import StageMethod


def attention(maps, power):
    """The mean of a power of maps [N, C, H, W] over channels, [N, H * W], of unit norm; 0 where all of them are."""
    return F.normalize(maps.pow(power).mean(dim=1).flatten(1))


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
            "which maps belong together: stages from the deepest on (paper); mdistiller: those of one place in the"
            " published lists, and odd powers keep the sign",
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
        sides = maps_student, maps_teacher
        if self.hyperparameters["OFFICIAL"] == "paper":
            sides = (maps.abs() for maps in sides)
        return F.mse_loss(*(attention(maps, self.hyperparameters["P"]) for maps in sides))

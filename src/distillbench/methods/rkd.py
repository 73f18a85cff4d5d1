"""RKD: relational knowledge distillation (Park, Kim, Lu, Cho, CVPR 2019, arXiv:1904.05068, eq. 3 to 8).

    loss = CE_WEIGHT * CE(z_s, y) + FEAT_WEIGHT * (DISTANCE_WEIGHT * RKD-D + ANGLE_WEIGHT * RKD-A)

RKD-D is the smooth L1 loss between the distances of the pooled features of all pairs of a batch, divided by their mean;
RKD-A that between the cosines of the angles of all triplets. As in the authors' code the means over pairs and triplets
count those of an image with itself, which are 0; the mean distance does not. A batch of one image has no relations,
and the loss 0.
"""

import torch
import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.methods.features import FeatureMethod


def relative_distances(differences, epsilon, squared):
    """Distances [N, N] in units of their mean, of differences [N, N, D]; no square of one is below epsilon."""
    number = len(differences)
    distances = differences.pow(2).sum(dim=2).clamp(min=epsilon)
    distances = distances if squared else distances.sqrt()
    distances = distances * (1 - torch.eye(number, dtype=distances.dtype, device=distances.device))
    mean = distances.sum() / max(number * (number - 1), 1)
    return distances / mean.clamp(min=epsilon)


def cosines(differences):
    """Cosines [N, N, N] of the angles at the first image between the second and the third."""
    directions = F.normalize(differences, dim=2)
    return directions @ directions.transpose(1, 2)


class RKD(FeatureMethod):
    name = "RKD"
    version = 1
    teacher = "network"
    reads = ("pooled_feat",)
    keys = {
        "DISTANCE_WEIGHT": Key(25.0, "weight of the loss on distances", minimum=0),
        "ANGLE_WEIGHT": Key(50.0, "weight of the loss on angles", minimum=0),
        "LOSS.CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "LOSS.FEAT_WEIGHT": Key(1.0, "weight of both losses on relations", minimum=0),
        "PDIST.EPSILON": Key(1e-12, "the least squared distance", above=0, maximum=1),
        "PDIST.SQUARED": Key(False, "take squared distances"),
    }
    bibtex = """\
@inproceedings{park2019relational,
  title = {Relational Knowledge Distillation},
  author = {Park, Wonpyo and Kim, Dongju and Lu, Yan and Cho, Minsu},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages = {3967--3976},
  year = {2019},
}
"""

    def distillation_loss(self, student, teacher, batch, schedule):
        points = (output.pooled for output in (student, teacher))
        s, t = (x - x[:, None] for x in points)
        limits = self.hyperparameters["PDIST.EPSILON"], self.hyperparameters["PDIST.SQUARED"]
        distance = F.smooth_l1_loss(relative_distances(s, *limits), relative_distances(t, *limits))
        angle = F.smooth_l1_loss(cosines(s), cosines(t))
        return self.hyperparameters["DISTANCE_WEIGHT"] * distance + self.hyperparameters["ANGLE_WEIGHT"] * angle

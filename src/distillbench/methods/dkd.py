"""DKD: decoupled knowledge distillation (Zhao, Cui, Song, Qiu, Liang, CVPR 2022, arXiv:2203.08679, eq. 7).

    loss = CE_WEIGHT * CE(z_s, y) + min(epoch / WARMUP, 1) * (ALPHA * TCKD + BETA * NCKD)

TCKD is the KL divergence between the teacher's and the student's two-class distributions (target, rest), NCKD that
between their distributions over the classes that are not the target; both at the temperature T, times T^2, averaged
over the batch. Computed from log-probabilities, so that confident networks give finite losses.
"""

import torch
import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.methods.base import LogitMethod


def tckd_loss(logits_student, logits_teacher, target, temperature):
    """T^2 * KL(teacher || student) of (target, rest) for logits [N, C] and labels [N], averaged over the batch: 0-d."""
    return _kl(*(_target_and_rest(z / temperature, target) for z in (logits_student, logits_teacher))) * temperature**2


def nckd_loss(logits_student, logits_teacher, target, temperature):
    """T^2 * KL(teacher || student) over the other classes, averaged over the batch: 0-d."""
    logs = (F.log_softmax(others(z, target) / temperature, dim=1) for z in (logits_student, logits_teacher))
    return _kl(*logs) * temperature**2


def others(logits, target):
    """The logits [N, C - 1] of the classes that are not the target, in their order."""
    classes = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, classes + (classes >= target[:, None]))


def _target_and_rest(logits, target):
    """Log-probabilities [N, 2] of the target and of all other classes together."""
    both = torch.cat([logits.gather(1, target[:, None]), others(logits, target).logsumexp(dim=1, keepdim=True)], dim=1)
    return F.log_softmax(both, dim=1)


def _kl(log_student, log_teacher):
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


class DKD(LogitMethod):
    name = "DKD"
    version = 1
    teacher = "logits"
    temperature = "T"
    ce_weight = "CE_WEIGHT"
    keys = {
        "CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "ALPHA": Key(1.0, "weight of the target-class part, TCKD", minimum=0),
        "BETA": Key(8.0, "weight of the part on the other classes, NCKD", minimum=0),
        "T": Key(4.0, "temperature of both parts", above=0),
        "WARMUP": Key(20, "epochs over which the distillation loss grows linearly; 0: none", minimum=0),
    }
    bibtex = """\
@inproceedings{zhao2022dkd,
  title = {Decoupled Knowledge Distillation},
  author = {Zhao, Borui and Cui, Quan and Song, Renjie and Qiu, Yiyu and Liang, Jiajun},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages = {11953--11962},
  year = {2022},
}
"""

    def distillation_loss(self, logits_student, logits_teacher, target):
        terms = (logits_student, logits_teacher, target, self.hyperparameters["T"])
        return self.hyperparameters["ALPHA"] * tckd_loss(*terms) + self.hyperparameters["BETA"] * nckd_loss(*terms)

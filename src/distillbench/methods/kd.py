"""KD: knowledge distillation (Hinton, Vinyals, Dean 2015, arXiv:1503.02531).

    loss = CE_WEIGHT * CE(z_s, y) + min(epoch / WARMUP, 1) * KD_WEIGHT * T^2 * KL(softmax(z_t / T) || softmax(z_s / T))

both averaged over the batch. The published baselines use CE_WEIGHT 0.1, KD_WEIGHT 0.9 and no warm-up
(RepDistiller, mdistiller); the GKD repository uses 1 and 1 with a warm-up of 20 epochs.
"""

import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.methods.base import LogitMethod


def kd_loss(logits_student, logits_teacher, temperature):
    """T^2 * KL(teacher || student) of logits [N, C], averaged over the batch: 0-d."""
    log_student = F.log_softmax(logits_student / temperature, dim=1)
    log_teacher = F.log_softmax(logits_teacher / temperature, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


class KD(LogitMethod):
    name = "KD"
    version = 1
    bibtex = """
@article{hinton2015distilling,
  title = {Distilling the Knowledge in a Neural Network},
  author = {Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff},
  journal = {arXiv preprint arXiv:1503.02531},
  year = {2015}
}"""
    teacher = "logits"
    temperature = "TEMPERATURE"
    keys = {
        "TEMPERATURE": Key(4.0, "softens both distributions", above=0, gkd=1.0),
        "LOSS.CE_WEIGHT": Key(0.1, "weight of the cross entropy", minimum=0, gkd=1.0),
        "LOSS.KD_WEIGHT": Key(0.9, "weight of the distillation loss", minimum=0, gkd=1.0, ignored_by_gkd=True),
        "WARMUP": Key(0, "epochs over which the distillation loss grows linearly; 0: none", minimum=0, gkd=20),
    }

    def distillation_loss(self, logits_student, logits_teacher, target):
        loss = kd_loss(logits_student, logits_teacher, self.hyperparameters["TEMPERATURE"])
        return self.hyperparameters["LOSS.KD_WEIGHT"] * loss

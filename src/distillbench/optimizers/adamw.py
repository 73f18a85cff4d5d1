"""AdamW: Adam with decoupled weight decay (Loshchilov, Hutter, ICLR 2019, arXiv:1711.05101, algorithm 2).

    p <- p - lr WEIGHT_DECAY p        m <- BETA1 m + (1 - BETA1) g        v <- BETA2 v + (1 - BETA2) g^2
    p <- p - lr (m / (1 - BETA1^t)) / (sqrt(v / (1 - BETA2^t)) + EPS)

t is the number of a parameter's steps. As in torch the decay is multiplied by the learning rate.
"""

import torch
from torch.optim.adamw import adamw  # the function: the class around it imports a compiler, for seconds

from distillbench.config.keys import Key
from distillbench.optimizers.base import Optimizer


class AdamW(Optimizer):
    name = "AdamW"
    version = 1
    keys = {
        "BETA1": Key(0.9, "AdamW: what stays of the mean of gradients", minimum=0, maximum=0.999999),
        "BETA2": Key(0.999, "AdamW: what stays of the mean of their squares", minimum=0, maximum=0.999999),
        "EPS": Key(1e-8, "AdamW: added to the root of the mean of squares", above=0),
    }
    bibtex = """\
@inproceedings{loshchilov2019decoupled,
  title = {Decoupled Weight Decay Regularization},
  author = {Loshchilov, Ilya and Hutter, Frank},
  booktitle = {International Conference on Learning Representations},
  year = {2019},
}
"""

    def __init__(self, parameters, schedule):
        kept = {"exp_avgs": torch.zeros_like, "exp_avg_sqs": torch.zeros_like, "state_steps": _counter}
        super().__init__(parameters, **kept)
        self.settings = {"beta1": schedule["BETA1"], "beta2": schedule["BETA2"], "eps": schedule["EPS"]}
        self.settings |= {"weight_decay": schedule["WEIGHT_DECAY"], "amsgrad": False, "maximize": False}

    def step(self, parameters, gradients, exp_avgs, exp_avg_sqs, state_steps, lr):
        kept = (exp_avgs, exp_avg_sqs, [], state_steps)
        adamw(parameters, gradients, *kept, fused=True, lr=lr, **self.settings)


def _counter(parameter):
    """Of a parameter's steps; a tensor, which a captured step counts up, too."""
    return torch.zeros((), dtype=torch.float32, device=parameter.device)

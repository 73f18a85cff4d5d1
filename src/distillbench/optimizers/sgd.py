"""SGD with momentum, as published: v <- m v + g + WEIGHT_DECAY p, p <- p - lr v; Nesterov's: p <- p - lr (g' + m v),
where g' is the gradient with its weight decay.
"""

import torch
from torch.optim.sgd import sgd  # the function: the class around it imports a compiler, for seconds

from distillbench.config.keys import Key
from distillbench.optimizers.base import Optimizer


class SGD(Optimizer):
    name = "SGD"
    version = 1
    keys = {
        "MOMENTUM": Key(0.9, "SGD: what stays of the velocity", minimum=0, maximum=1),
        "NESTEROV": Key(False, "SGD: whether the velocity looks a step ahead"),
    }

    def __init__(self, parameters, schedule):
        super().__init__(parameters, buffers=torch.zeros_like)
        self.settings = {"momentum": schedule["MOMENTUM"], "weight_decay": schedule["WEIGHT_DECAY"]}
        self.settings |= {"nesterov": schedule["NESTEROV"], "dampening": 0.0, "maximize": False}

    def step(self, parameters, gradients, buffers, lr):
        sgd(parameters, gradients, buffers, fused=True, lr=lr, **self.settings)

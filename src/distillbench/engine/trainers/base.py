"""The published trainer: SGD with momentum on the sum of the losses, weight decay on every parameter."""

import torch
from torch.optim.sgd import sgd  # the function: the class around it imports a compiler, for seconds


class Trainer:
    name = "base"
    version = 1

    def __init__(self, parameters, schedule, hyperparameters):
        """schedule: the specification's "schedule". The learning rate is a tensor and set from outside."""
        self.parameters = parameters
        self.buffers = [torch.zeros_like(parameter) for parameter in parameters]
        self.lr = torch.tensor(schedule["LR"], dtype=parameters[0].dtype, device=parameters[0].device)
        self.settings = {"momentum": schedule["MOMENTUM"], "weight_decay": schedule["WEIGHT_DECAY"]}

    def update(self, losses):
        """One step down the gradient of sum(losses), a dict of 0-d tensors. A parameter without gradient rests."""
        sum(losses.values()).backward()
        moving = [(p, p.grad, v) for p, v in zip(self.parameters, self.buffers, strict=True) if p.grad is not None]
        if moving:
            parameters, gradients, buffers = map(list, zip(*moving, strict=True))
            with torch.no_grad():
                sgd(
                    parameters,
                    gradients,
                    buffers,
                    fused=True,
                    lr=self.lr,
                    dampening=0.0,
                    nesterov=False,
                    maximize=False,
                    **self.settings,
                )
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self):
        return {"buffers": self.buffers}

    def load_state_dict(self, state):
        for buffer, saved in zip(self.buffers, state["buffers"], strict=True):
            buffer.copy_(saved)

"""The published trainer: SGD with momentum on the sum of the losses, weight decay on every parameter."""

import torch
from torch.optim.sgd import sgd  # the function: the class around it imports a compiler, for seconds

from distillbench.group import Alone


class Trainer:
    """Losses to gradients, their mean over the processes, descent. Other trainers derive from it."""

    name = "base"
    version = 1

    def __init__(self, parameters, schedule, hyperparameters, group=Alone()):  # noqa: B008 (it has no state)
        """schedule: the specification's "schedule". The learning rate is a tensor and set from outside."""
        self.parameters, self.group = parameters, group
        self.buffers = [torch.zeros_like(parameter) for parameter in parameters]
        self.lr = torch.tensor(schedule["LR"], dtype=parameters[0].dtype, device=parameters[0].device)
        self.settings = {"momentum": schedule["MOMENTUM"], "weight_decay": schedule["WEIGHT_DECAY"]}

    def update(self, losses):
        """One step. losses: 0-d tensors by name. A parameter without gradient rests."""
        self.descend(*map(self.group.mean, self.gradients(losses)))

    def gradients(self, losses):
        """(gradients of the sum of the losses,): a list with one, or None, for each parameter."""
        sum(losses.values()).backward()
        gradients = [parameter.grad for parameter in self.parameters]
        self.forget_gradients()
        return (gradients,)

    def forget_gradients(self):
        """A step leaves none, unless it was broken off."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def descend(self, gradients):
        moving = [(p, g, v) for p, g, v in zip(self.parameters, gradients, self.buffers, strict=True) if g is not None]
        if not moving:
            return
        fixed = {"dampening": 0.0, "nesterov": False, "maximize": False}
        sgd(*map(list, zip(*moving, strict=True)), fused=True, lr=self.lr, **fixed, **self.settings)

    def statics(self):
        """The tensors that a step reads or writes besides the parameters: they never move."""
        return [self.lr, *self.buffers]

    def state_dict(self):
        return {"buffers": self.buffers}

    def load_state_dict(self, state):
        for buffer, saved in zip(self.buffers, state["buffers"], strict=True):
            buffer.copy_(saved)

"""The published trainer: an optimizer on the sum of the losses, weight decay on every parameter."""

import torch

from distillbench.config.components import implementation


class Trainer:
    """Losses to gradients, and gradients to descent. Other trainers derive from it."""

    name = "base"
    version = 1

    def __init__(self, parameters, schedule, hyperparameters):
        """schedule: `Specification.schedule`. The learning rate is a tensor and set from outside."""
        self.parameters = parameters
        self.lr = torch.tensor(schedule["LR"], dtype=parameters[0].dtype, device=parameters[0].device)
        self.prepare(schedule, hyperparameters)

    def prepare(self, schedule, hyperparameters):
        """Make what is kept between steps."""
        self.optimizer = implementation("optimizer", schedule["TYPE"])(self.parameters, schedule)

    def update(self, losses):
        """One step along the gradients of losses, 0-d tensors by name."""
        self.descend(*self.gradients(losses))

    def gradients(self, losses):
        """(gradients of the sum of the losses,): a list with one, or None, for each parameter.

        losses: 0-d tensors by name.
        """
        sum(losses.values()).backward()
        gradients = [parameter.grad for parameter in self.parameters]
        self.forget_gradients()
        return (gradients,)

    def forget_gradients(self):
        """A step leaves none, unless it was broken off."""
        for parameter in self.parameters:
            parameter.grad = None

    def descend(self, gradients):
        """One step along gradients as `gradients` gives them. A parameter without one rests."""
        self.optimizer.descend(gradients, self.lr)

    def statics(self):
        """The tensors that a step reads or writes besides the parameters: they never move."""
        return [self.lr, *(tensor for tensors in self.optimizer.state.values() for tensor in tensors)]

    def state_dict(self):
        return self.optimizer.state_dict()

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state)

"""The published trainer: SGD with momentum on the sum of the losses, weight decay on every parameter."""

import torch


class Trainer:
    name = "base"
    version = 1

    def __init__(self, parameters, schedule, hyperparameters):
        """schedule: the specification's "schedule". The learning rate is a tensor and set from outside."""
        self.lr = torch.tensor(schedule["LR"], dtype=parameters[0].dtype, device=parameters[0].device)
        self.optimizer = torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=schedule["MOMENTUM"],
            weight_decay=schedule["WEIGHT_DECAY"],
            fused=True,
        )

    def update(self, losses):
        """One step down the gradient of sum(losses), a dict of 0-d tensors."""
        sum(losses.values()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self):
        return self.optimizer.state_dict()

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state)
        self.optimizer.param_groups[0]["lr"] = self.lr  # stays the tensor that the engine sets

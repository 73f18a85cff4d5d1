"""DOT: distillation-oriented trainer (Zhao, Cui, Song, Liang, ICCV 2023, arXiv:2307.08436, algorithm 1).

SGD with a momentum buffer for each of two losses, m - DELTA for the task and m + DELTA for the distillation, so that
the distillation dominates the update. One forward pass, two gradients g and h:

    task          v <- (m - DELTA) v + g + WEIGHT_DECAY p        p <- p - lr v
    distillation  u <- (m + DELTA) u + h                         p <- p - lr u

A parameter that has one of the gradients only moves by that one, with momentum m and the weight decay (where it is h,
from the buffer's second step on, as published); one that has neither does not move. Where m is DELTA the task has no
buffer, p <- p - lr (g + WEIGHT_DECAY p), also for a parameter that has g only. docs/methods.md derives DOT's control.
"""

import torch

from distillbench.config.keys import Key

TASK = "ce"


class Trainer:
    name = "dot"
    version = 1
    version_without_margin = 2  # where MOMENTUM is DELTA: version 1 kept a buffer for the task there
    node = "SOLVER.DOT"
    two_losses = True
    margin = "DELTA"  # m - DELTA and m + DELTA have to lie in [0, 1), or an update grows without bound
    keys = {"DELTA": Key(0.075, "taken from the task's momentum, added to the distillation's", minimum=0, maximum=0.5)}
    bibtex = """\
@inproceedings{zhao2023dot,
  title = {{DOT}: A Distillation-Oriented Trainer},
  author = {Zhao, Borui and Cui, Quan and Song, Renjie and Liang, Jiajun},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year = {2023},
}
"""

    def __init__(self, parameters, schedule, hyperparameters):
        """schedule: the specification's "schedule". The learning rate is a tensor and set from outside."""
        momentum, delta = schedule["MOMENTUM"], hyperparameters["DELTA"]
        self.parameters, self.weight_decay = parameters, schedule["WEIGHT_DECAY"]
        self.momentum = {"task": momentum - delta, "distillation": momentum + delta, "alone": momentum}
        self.buffers = {"task": [None] * len(parameters), "distillation": [None] * len(parameters)}
        self.lr = torch.tensor(schedule["LR"], dtype=parameters[0].dtype, device=parameters[0].device)

    def update(self, losses):
        """One step. losses: 0-d tensors by name, "ce" the task's, all others the distillation's."""
        task = self.gradients([loss for name, loss in losses.items() if name == TASK])
        distillation = self.gradients([loss for name, loss in losses.items() if name != TASK])
        late = [g is None and u is not None for g, u in zip(task, self.buffers["distillation"])]
        self.descend("task", task, distillation, [True] * len(task))
        self.descend("distillation", distillation, task, late)

    def gradients(self, losses):
        """A list with a gradient, or None where there is none, for each parameter."""
        if not any(loss.requires_grad for loss in losses):
            return [None] * len(self.parameters)
        return torch.autograd.grad(sum(losses), self.parameters, retain_graph=True, allow_unused=True)

    @torch.no_grad()
    def descend(self, half, gradients, others, decayed):
        """Move each parameter that has a gradient. decayed: whether weight decay belongs to it here."""
        here = [i for i, gradient in enumerate(gradients) if gradient is not None]
        if not here:
            return
        buffers = [None] * len(others) if half == "task" and not self.momentum["task"] else self.buffers[half]
        parameters = [self.parameters[i] for i in here]
        for i in here:
            if buffers[i] is None:
                buffers[i] = torch.zeros_like(self.parameters[i])
        moved = [buffers[i] for i in here]
        torch._foreach_mul_(moved, [self.momentum["alone" if others[i] is None else half] for i in here])
        torch._foreach_add_(moved, [gradients[i] for i in here])
        decays = [self.weight_decay * decayed[i] for i in here]
        torch._foreach_add_(moved, torch._foreach_mul(parameters, decays))
        torch._foreach_sub_(parameters, torch._foreach_mul(moved, self.lr))

    def state_dict(self):
        return self.buffers

    def load_state_dict(self, state):
        for half, buffers in state.items():
            self.buffers[half] = [
                None if buffer is None else buffer.to(parameter)
                for buffer, parameter in zip(buffers, self.parameters, strict=True)
            ]

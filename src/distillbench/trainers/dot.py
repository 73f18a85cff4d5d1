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
from distillbench.group import Alone
from distillbench.trainers import base

TASK = "ce"


class Trainer(base.Trainer):
    name = "dot"
    version = 1
    version_without_margin = 2  # where MOMENTUM is DELTA: version 1 kept a buffer for the task there
    label = "dot"
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

    def __init__(self, parameters, schedule, hyperparameters, group=Alone()):  # noqa: B008 (it has no state)
        super().__init__(parameters, schedule, hyperparameters, group)
        momentum, delta = schedule["MOMENTUM"], hyperparameters["DELTA"]
        self.momentum = {"task": momentum - delta, "distillation": momentum + delta, "alone": momentum}
        self.buffers = {"task": [None] * len(parameters), "distillation": [None] * len(parameters)}

    def gradients(self, losses):
        """(task's, distillation's) gradients: "ce" is the task's loss, all others are the distillation's."""
        task = self._gradients([loss for name, loss in losses.items() if name == TASK])
        return task, self._gradients([loss for name, loss in losses.items() if name != TASK])

    def _gradients(self, losses):
        if not any(loss.requires_grad for loss in losses):
            return [None] * len(self.parameters)
        return torch.autograd.grad(sum(losses), self.parameters, retain_graph=True, allow_unused=True)

    def descend(self, task, distillation):
        late = [g is None and u is not None for g, u in zip(task, self.buffers["distillation"])]
        self._descend("task", task, distillation, [True] * len(task))
        self._descend("distillation", distillation, task, late)

    @torch.no_grad()
    def _descend(self, half, gradients, others, decayed):
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
        decays = [self.settings["weight_decay"] * decayed[i] for i in here]
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

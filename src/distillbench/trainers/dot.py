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
from distillbench.trainers import base

TASK, HALVES = "ce", ("task", "distillation")


class Trainer(base.Trainer):
    name = "dot"
    version = 1
    version_without_margin = 2  # where MOMENTUM is DELTA: version 1 kept a buffer for the task there
    label = "dot"
    node = "SOLVER.DOT"
    two_losses = True
    solver = {"TYPE": "SGD", "NESTEROV": False}  # two momenta, neither of which looks ahead
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

    def prepare(self, schedule, hyperparameters):
        momentum, delta, parameters = schedule["MOMENTUM"], hyperparameters["DELTA"], self.parameters
        self.momentum = {"task": momentum - delta, "distillation": momentum + delta, "alone": momentum}
        self.weight_decay = schedule["WEIGHT_DECAY"]
        self.buffers = {half: [torch.zeros_like(p) for p in parameters] for half in HALVES}
        self.started = {half: torch.zeros(len(parameters)).to(parameters[0]) for half in HALVES}  # 1: had a gradient
        self.masks = {}  # {positions of parameters: 1 there, 0 elsewhere}

    def gradients(self, losses):
        """(task's, distillation's) gradients: "ce" is the task's loss, all others are the distillation's."""
        task = self._gradients([loss for name, loss in losses.items() if name == TASK])
        return task, self._gradients([loss for name, loss in losses.items() if name != TASK])

    def _gradients(self, losses):
        if not any(loss.requires_grad for loss in losses):
            return [None] * len(self.parameters)
        return torch.autograd.grad(sum(losses), self.parameters, retain_graph=True, allow_unused=True)

    @torch.no_grad()
    def descend(self, task, distillation):
        self._descend("task", task, distillation)
        self._descend("distillation", distillation, task)

    def _descend(self, half, gradients, others):
        """Move each parameter that has a gradient. others: the gradients of the other half."""
        here = tuple(i for i, gradient in enumerate(gradients) if gradient is not None)
        if not here:
            return
        parameters, moved = ([tensors[i] for i in here] for tensors in (self.parameters, self.buffers[half]))
        kept = half != "task" or self.momentum["task"] != 0  # else there is no buffer: what it holds does not count
        factors = [self.momentum["alone" if others[i] is None else half] if kept else 0.0 for i in here]
        torch._foreach_mul_(moved, factors)
        torch._foreach_add_(moved, [gradients[i] for i in here])
        if half == "task":
            torch._foreach_add_(moved, torch._foreach_mul(parameters, self.weight_decay))
        for i in here if half != "task" else ():
            if others[i] is None:
                decay = self.weight_decay * self.started[half][i]
                self.buffers[half][i].add_(self.parameters[i] * decay)
        torch._foreach_sub_(parameters, torch._foreach_mul(moved, self.lr))
        if kept:
            torch.maximum(self.started[half], self._mask(here), out=self.started[half])

    def _mask(self, here):
        if here not in self.masks:
            positions = torch.tensor([float(i in here) for i in range(len(self.parameters))])
            self.masks[here] = positions.to(self.started["task"])
        return self.masks[here]

    def statics(self):
        return [self.lr, *self.started.values(), *(buffer for buffers in self.buffers.values() for buffer in buffers)]

    def state_dict(self):
        return {**self.buffers, "started": self.started}

    def load_state_dict(self, state):
        """Also a state from before buffers lay still, in which one that had no gradient yet is None."""
        for half in HALVES:
            here = [buffer is not None for buffer in state[half]]
            for buffer, saved, there in zip(self.buffers[half], state[half], here, strict=True):
                buffer.copy_(saved) if there else buffer.zero_()
            started = state["started"][half] if "started" in state else torch.tensor(here)
            self.started[half].copy_(started)

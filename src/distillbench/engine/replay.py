"""Steps recorded once and replayed: what a CUDA graph does, rehearsed on any device, operation by operation.

A replay calls the recorded operations again on the same tensors, and copies what they return into the tensors that they
returned then. Numbers of Python, branches on values and tensors that were replaced stay as they were recorded, and show
as a difference from a step that is not replayed.
"""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recording(TorchDispatchMode):
    """Inside the context every operation is done and kept, those of backward passes too."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, made))
        return made

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, recorded in self.operations:
            for new, old in zip(tree_leaves(function(*args, **kwargs)), tree_leaves(recorded), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():  # else a view, or in place
                    old.copy_(new.reshape(old.shape))  # whose shape a later operation may have changed: `squeeze_`


class Replayed:
    """Steps of a `Learner` of which the first of each size is recorded and all others are replayed."""

    def __init__(self, learner):
        self.learner, self.recordings = learner, {}

    def step(self, size):
        """As `Learner.step`."""
        if size not in self.recordings:
            with untouched(self.learner):  # what only the first step does, such as declaring a sum
                self.learner.step(size)
            with Recording() as recording:
                self.learner.step(size)
            self.recordings[size] = recording, frozenset(self.learner.sums.counted)
            return
        recording, counted = self.recordings[size]
        recording.replay()
        self.learner.sums.counted |= counted


@contextmanager
def untouched(learner):
    """What steps inside the context move is put back at its end, in place."""
    before, counted = {tensor.data_ptr(): tensor.clone() for tensor in learner.statics()}, set(learner.sums.counted)
    yield
    with torch.no_grad():
        for tensor in learner.statics():
            saved = before.get(tensor.data_ptr())
            tensor.zero_() if saved is None else tensor.copy_(saved)  # a sum that was declared inside
    learner.sums.counted = counted

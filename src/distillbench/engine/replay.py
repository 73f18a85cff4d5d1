"""Steps recorded once and replayed: what a CUDA graph does, rehearsed on any device, operation by operation.

A replay calls the recorded operations again on the same tensors, and copies what they return into the tensors that they
returned then. Numbers of Python, branches on values and tensors that were replaced stay as they were recorded, and show
as a difference from a step that is not replayed.
"""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Replayed:
    """Steps of a `Learner` that are replays: of each kind the first is recorded, which moves nothing."""

    def __init__(self, learner):
        self.learner, self.recordings = learner, {}

    def step(self, size, observing=True):
        """As `Learner.step`."""
        kind = size, observing
        if kind not in self.recordings:
            self.recordings[kind] = self._recorded(*kind)
        replay, added = self.recordings[kind]
        replay()
        self.learner.sums.counted |= added

    def _recorded(self, size, observing):
        """(replay, the names that the step adds to sums)"""
        with untouched(self.learner):  # what only the first step does, such as declaring a sum
            self.learner.step(size, observing)
        with untouched(self.learner), Recording() as recording:
            self.learner.step(size, observing)
            added = frozenset(self.learner.sums.counted)
        return recording.replay, added


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

    @property
    def computing(self):
        """Names of the operations that compute: neither views nor mere memory. A GPU has about a kernel for each."""
        return [function._schema.name for function, *call in self.operations if _computes(function, *call)]


def _computes(function, args, kwargs, made):
    if function._schema.is_mutable:
        return True
    read, made = ([t for t in tree_leaves(x) if isinstance(t, torch.Tensor)] for x in ((args, kwargs), made))
    storages = {tensor.untyped_storage().data_ptr() for tensor in read}
    views = all(tensor.untyped_storage().data_ptr() in storages for tensor in made)
    return "empty" not in function._schema.name and not views


@contextmanager
def untouched(learner):
    """What steps inside the context move is put back at its end, in place. Inside, no sum counts yet."""
    before, counted = {tensor.data_ptr(): tensor.clone() for tensor in learner.statics()}, learner.sums.counted
    learner.sums.counted = set()
    try:
        yield
    finally:
        learner.sums.counted = counted
        with torch.no_grad():
            for tensor in learner.statics():
                saved = before.get(tensor.data_ptr())
                tensor.zero_() if saved is None else tensor.copy_(saved)  # a sum that was declared inside

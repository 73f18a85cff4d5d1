"""Student and teacher as a method sees them: functions of a batch."""

import torch

from distillbench.tasks.classification.batches import Output


class Student:
    """`Batch` -> a tuple of `Output`, one a view."""

    def __init__(self, network):
        self.network = network

    def __call__(self, batch):
        return tuple(Output(*self.network(view)) for view in batch.views)


class LiveTeacher:
    """The same of a frozen network, without gradient; features: whether they are there besides the logits."""

    def __init__(self, network, features):
        self.network, self.features = network, features

    @torch.no_grad()
    def __call__(self, batch):
        outputs = (self.network(view) for view in batch.views)
        return tuple(Output(logits, features if self.features else {}) for logits, features in outputs)


class TableTeacher:
    """The same from a table of the teacher's logits for all views of all training images, [N, V, C]."""

    def __init__(self, table):
        self.rows = table.flatten(0, 1)

    def __call__(self, batch):
        return tuple(Output(self.rows.index_select(0, numbers), {}) for numbers in batch.view_numbers)

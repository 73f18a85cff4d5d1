"""Student and teacher as a method sees them: functions of a batch."""

from collections.abc import Mapping

import torch
import torch.nn as nn

from distillbench.engine.device import computing_in
from distillbench.models.network import in_two_parts, logits_alone
from distillbench.tasks.classification.batches import Output


class Student:
    """`Batch` -> a tuple of `Output`, one a view. precision: of its convolutions, as a specification names it."""

    def __init__(self, network, precision):
        self.network, self.precision = network, precision
        if precision == "bf16":
            for module in network.modules():
                if isinstance(module, nn.Linear):
                    module.forward = _without_autocast(module.forward)

    def __call__(self, batch):
        return tuple(map(self._output, batch.views))

    def _output(self, view):
        with computing_in(self.precision, view.device.type):
            logits, features = self.network(view)
        return Output(logits, self._in_float(features))

    def _in_float(self, features):
        return InFloat(features) if self.precision == "bf16" else features


class LiveTeacher(Student):
    """The same of a frozen network, without gradient. features: whether they are there besides the logits.

    The head of one of the package's networks is computed where logits are asked for.
    """

    def __init__(self, network, precision, features):
        super().__init__(network, precision)
        self.features = features

    @torch.no_grad()
    def _output(self, view):
        with computing_in(self.precision, view.device.type):
            if not self.features:
                return Output(logits_alone(self.network, view), {})
            features, logits = in_two_parts(self.network, view)
        return Output(torch.no_grad()(logits), self._in_float(features))


class TableTeacher:
    """The same from a table of the teacher's logits for all views of all training images, [N, V, C].

    live: the teacher, which is asked about views that are not those of the feed any more (a method may mix images).
    """

    def __init__(self, table, live):
        self.rows, self.live = table.flatten(0, 1), live

    def __call__(self, batch):
        numbers = batch.view_numbers()
        if numbers is None:
            return self.live(batch)
        return tuple(Output(self.rows.index_select(0, view), {}) for view in numbers)


class InFloat(Mapping):
    """Features in float32, each converted when it is asked for."""

    def __init__(self, features):
        self.features = features

    def __getitem__(self, name):
        feature = self.features[name]
        return feature.float() if isinstance(feature, torch.Tensor) else [entry.float() for entry in feature]

    def __iter__(self):
        return iter(self.features)

    def __len__(self):
        return len(self.features)


def _without_autocast(forward):
    def in_float(images):
        with torch.autocast(images.device.type, enabled=False):
            return forward(images.float())

    return in_float

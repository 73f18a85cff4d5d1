"""What a transformation is to a method on logits."""

from abc import ABC, abstractmethod

import torch.nn as nn


class Transform(nn.Module, ABC):
    """What happens to logits on their way into a distillation loss; the cross entropy gets them as they are."""

    def __init__(self, parameters, temperature):
        """parameters: {key: value} as in `keys`; temperature: that of the distillation loss."""
        super().__init__()
        self.temperature = temperature

    @abstractmethod
    def forward(self, logits_student, logits_teacher, batch):
        """(student logits, teacher logits), [N, C] each, of those of a `Batch`."""

    def confidence(self, logits_teacher, confidence):
        """[N]: the teacher's confidence that figures show; confidence: that of a transform before this one, or None.

        Where all give None it is the largest softened probability.
        """
        return confidence

    def observations(self, logits_teacher, batch, member):
        """{name: 1-d tensor} for history.csv, as of `Method.observations`.

        member: [N, BINS], 1 where a sample's confidence lies in a bin, else 0.
        """
        return {}

"""GKD: gradient scaling knowledge distillation (github.com/snw2021/GKD, GradientKD.py), for any logit loss.

The value of the distillation loss stays what it is. Its gradient with respect to the student's logits is
multiplied, for sample n and class c, by

    w[n, c] = 1                                             if c is the sample's target class
    w[n, c] = SCALE * sigmoid(K * (p[n] - CENTRE))          otherwise

where p[n] is the teacher's largest softened probability and CENTRE the mean of p over the batch. With the
published K = 0.6 and SCALE = 2 the factor lies between 0.709 and 1.291 and is 1 at the centre.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from distillbench.config.keys import Key


class GradientScaling(nn.Module):
    name = "GKD"
    version = 1
    bibtex = """
@misc{gkd,
  title = {Gradient Scaling Knowledge Distillation: Alleviating Gradient Insensitivity to Enhance Non-target Class
           Learning},
  author = {{snw2021}},
  howpublished = {github.com/snw2021/GKD},
  note = {Code repository; it names no authors and says of the paper that it is under review}
}"""
    keys = {
        "K": Key(0.6, "slope of the sigmoid; negative values favour unconfident teachers"),
        "SCALE": Key(2.0, "height of the sigmoid: the factor at the centre is half of it", above=0),
        "CENTRE": Key(
            "batch_mean",
            "confidence at which the factor is SCALE / 2: the mean over the batch, or a number",
            choices=("batch_mean",),
            or_number=True,
        ),
        "TEMPERATURE": Key(
            "loss",
            "temperature of the confidence: that of the distillation loss, or a number",
            choices=("loss",),
            or_number=True,
            above=0,
        ),
        "TARGET": Key(
            "label",
            "the class whose gradient stays as it is: the label, or the teacher's largest class",
            choices=("label", "teacher"),
        ),
    }

    def __init__(self, parameters, temperature):
        """parameters: {key: value} as in `keys`; temperature: that of the distillation loss."""
        super().__init__()
        self.k, self.scale, self.centre = parameters["K"], parameters["SCALE"], parameters["CENTRE"]
        self.temperature = temperature if parameters["TEMPERATURE"] == "loss" else parameters["TEMPERATURE"]
        self.target = parameters["TARGET"]

    def factors(self, logits_teacher, target):
        """The gradient's factors w, [N, C], of teacher logits [N, C] and labels [N]."""
        confidence = F.softmax(logits_teacher / self.temperature, dim=1).amax(dim=1)
        centre = confidence.mean() if self.centre == "batch_mean" else self.centre
        scale = self.scale * torch.sigmoid(self.k * (confidence - centre))
        kept = target if self.target == "label" else logits_teacher.argmax(dim=1)
        factors = scale[:, None].expand_as(logits_teacher)
        return factors.scatter(1, kept[:, None], 1.0)

    def forward(self, logits_student, logits_teacher, target):
        """The student's logits [N, C], the same values; a gradient that flows back through them is scaled."""
        frozen = logits_student.detach()
        return frozen + (logits_student - frozen) * self.factors(logits_teacher, target)

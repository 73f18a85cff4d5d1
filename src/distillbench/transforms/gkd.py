"""GKD: gradient scaling knowledge distillation (github.com/snw2021/GKD, GradientKD.py), for any logit loss.

The value of the distillation loss stays what it is. Its gradient with respect to the student's logits is
multiplied, for sample n and class c, by

    w[n, c] = 1       if c is the sample's target class
    w[n, c] = s[n] = SCALE * sigmoid(K * (p[n] - CENTRE))      otherwise

where p[n] is the teacher's largest softened probability and CENTRE the mean of p over the batch. With the
published K = 0.6 and SCALE = 2 the factor lies between 0.709 and 1.291 and is 1 at the centre.

FACTORS and TARGET: none hold the method's controls. Each changes one thing and leaves the rest as it is:

    shuffled    s[n] becomes s[n - 1]: the same factors in every batch, on other samples. The batch's order is drawn
                anew every epoch, so this is a random cyclic shift: a placebo for "the teacher's confidence".
    inverted    s[n] becomes SCALE - s[n]: what confident teachers gained, they lose.
    mean        s[n] becomes the batch's mean of s: as much scaling as before, the same for every sample.
    TARGET: none    the target class is scaled like all others: a weight on the sample's distillation loss.
"""

import torch
import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.transforms.base import Transform


class GradientScaling(Transform):
    name = "GKD"
    version = 1
    place = "gradient_scaling"
    node = "GKD"
    label = "gkd"
    order = 10  # behind what changes the values of logits
    figure = "scale"
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
            "the class whose gradient stays as it is: the label, the teacher's largest class, or none",
            choices=("label", "teacher", "none"),
        ),
        "FACTORS": Key(
            "confidence",
            "those of the teacher's confidence, or a control: shuffled in the batch, inverted, or their mean",
            choices=("confidence", "shuffled", "inverted", "mean"),
            neutral="confidence",
        ),
    }
    aliases = {  # the GKD repository's cfg.py:178-183: KD with its own defaults and this transform
        "GradientKD": {
            "method": "KD",
            "defaults": "gkd",
            "keys": {
                "TEMPERATURE": Key(4.0, "read as KD.TEMPERATURE", above=0, why="the value goes into KD's"),
                "LOSS.CE_WEIGHT": Key(1.0, "read as KD.LOSS.CE_WEIGHT", minimum=0, why="the value goes into KD's"),
                "LOSS.KD_WEIGHT": Key(
                    1.0,
                    "1 whatever is given: the GKD repository reads the key and does not apply it",
                    minimum=0,
                    gkd=1.0,
                    ignored_by_gkd=True,
                    identity=False,
                    why="it has no effect in the code that it belongs to",
                ),
                "WARMUP": Key(20, "read as KD.WARMUP", minimum=0, why="the value goes into KD's"),
            },
        }
    }
    bibtex = """\
@misc{gkd,
  title = {Gradient Scaling Knowledge Distillation: Alleviating Gradient Insensitivity to Enhance Non-target Class
           Learning},
  author = {{snw2021}},
  howpublished = {\\url{https://github.com/snw2021/GKD}},
  note = {Code repository; it names no authors and says of the paper that it is under review},
}
"""

    def __init__(self, parameters, temperature):
        super().__init__(parameters, temperature)
        self.k, self.scale, self.centre = parameters["K"], parameters["SCALE"], parameters["CENTRE"]
        self.target, self.kind = parameters["TARGET"], parameters["FACTORS"]
        if parameters["TEMPERATURE"] != "loss":
            self.temperature = parameters["TEMPERATURE"]

    def confidence(self, logits_teacher, confidence=None):
        """The teacher's largest softened probability, [N]."""
        return F.softmax(logits_teacher / self.temperature, dim=1).amax(dim=1)

    def sample_factors(self, logits_teacher, batch):
        """s, [N]: the factor of a sample's scaled classes."""
        confidence = self.confidence(logits_teacher)
        centre = confidence.mean(dim=0) if self.centre == "batch_mean" else self.centre
        factors = self.scale * torch.sigmoid(self.k * (confidence - centre))
        if self.kind == "shuffled":
            return factors.roll(1)
        if self.kind == "inverted":
            return self.scale - factors
        return factors.mean(dim=0).expand_as(factors) if self.kind == "mean" else factors

    def factors(self, logits_teacher, batch):
        """The gradient's factors w, [N, C], of teacher logits [N, C] and a batch with labels."""
        factors = self.sample_factors(logits_teacher, batch)[:, None].expand_as(logits_teacher)
        if self.target == "none":
            return factors
        kept = batch.target if self.target == "label" else logits_teacher.argmax(dim=1)
        return factors.scatter(1, kept[:, None], 1.0)

    def forward(self, logits_student, logits_teacher, batch):
        """Both logits, the same values; a gradient that flows back through the student's is scaled."""
        frozen = logits_student.detach()
        return frozen + (logits_student - frozen) * self.factors(logits_teacher, batch), logits_teacher

    def observations(self, logits_teacher, batch, member):
        """factor [BINS]: the sum of the factors of the samples of a bin."""
        return {"factor": self.sample_factors(logits_teacher, batch) @ member}

"""What a method is to the engine: a module that turns outputs into a dict of losses."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

RANKS, BINS = 5, 20  # of `LogitMethod.observations`


class Output(NamedTuple):
    """What a network makes of one view: logits [N, C] and the published feature dictionary.

    features: {"feats": [maps [N, D, H, W]], "preact_feats": [the same before the ReLU], "pooled_feat": [N, D]}.
    """

    logits: Tensor
    features: dict


class Batch(NamedTuple):
    """A batch with names: `views` holds `Method.views` augmentations [N, 3, H, W] of the same images."""

    views: tuple[Tensor, ...]
    target: Tensor  # [N], int64 class numbers
    index: Tensor  # [N], int64 positions in the training set


class Context(NamedTuple):
    """What a method may depend on when it is built."""

    num_classes: int
    num_images: int  # in the training set
    student: Output  # shapes: the output for a batch of two, on the meta device
    teacher: Output | None


class Method(nn.Module, ABC):
    """A distillation method: its declaration, and a function from outputs to losses.

    The declaration is literals in the class's own body; planning reads them without importing the file:

    name: the value of `DISTILLER.TYPE`, also the configuration node of its keys.
    version: raised when the same hyper-parameters give other numbers; part of a run's identity.
    keys: {"TEMPERATURE": Key(...)}, the hyper-parameters, reached as `self.hyperparameters["TEMPERATURE"]`.
    needs: what it uses of the teacher: (), ("teacher_logits",) or ("teacher_logits", "teacher_features").
        Without any the run has no teacher. The student's features are always there.
    views: augmented views of an image per batch. With more than one, `losses` gets a tuple of outputs, one
        a view, for student and teacher each; with one it gets the output itself.
    bibtex: one BibTeX entry, for the report page and the bibliography of the paper folder; optional.
    temperature: for methods with a loss on student against teacher logits, the key that holds its
        temperature; such a method can take GKD.

    Own modules and buffers are registered as in any `nn.Module`; they are trained, saved and resumed with the
    student and initialised from a random stream of their own.
    """

    keys = {}
    needs = ()
    views = 1
    temperature = None

    def __init__(self, hyperparameters, context):
        super().__init__()
        self.hyperparameters = hyperparameters
        self.context = context

    def schedule(self, epoch):
        """{name: number} of what changes with the epoch (from 1 on); `losses` gets them as 0-d tensors.

        The names are the same in every epoch.
        """
        return {}

    @abstractmethod
    def losses(self, student, teacher, batch, schedule):
        """{name: 0-d tensor}, weights included. "ce" is the task's loss, every other a distillation loss.

        student, teacher: `Output` (teacher None where nothing of it is needed); batch: `Batch`;
        schedule: {name: 0-d tensor}. No value is read back here (`.item()`, `if tensor`, boolean masks):
        a step never waits for the device. A loss may be there in some steps only: history.csv has it averaged over
        all images of the epoch, and empty in an epoch without it.
        """

    def observations(self, student, teacher, batch, losses):
        """{name: 1-d tensor}: sums over the batch that history.csv gets, divided by the epoch's number of images, as
        train_NAME_0, train_NAME_1, ... (train_NAME of a 0-d one). Called after `losses`, before the update; without
        effect on the run. A name keeps its length, and takes no column of another (images, top1, loss...).
        """
        return {}


class LogitMethod(Method):
    """A cross entropy and one loss on student against teacher logits, warmed up linearly; it can take GKD.

    ce_weight, warmup: the keys that hold the weight of the cross entropy and the length of the warm-up.
    """

    ce_weight = "LOSS.CE_WEIGHT"
    warmup = "WARMUP"

    def __init__(self, hyperparameters, context, scaling=None):
        """scaling: None, or a module (logits_student, logits_teacher, target) -> logits_student."""
        super().__init__(hyperparameters, context)
        self.scaling = scaling

    def schedule(self, epoch):
        """The published warm-up: min(epoch / WARMUP, 1), from the first epoch on; 1 without one."""
        length = self.hyperparameters[self.warmup]
        return {"warmup": min(epoch / length, 1.0) if length else 1.0}

    def losses(self, student, teacher, batch, schedule):
        logits = student.logits
        if self.scaling is not None:
            logits = self.scaling(logits, teacher.logits, batch.target)
        return {
            "ce": self.hyperparameters[self.ce_weight] * F.cross_entropy(student.logits, batch.target),
            "kd": schedule["warmup"] * self.distillation_loss(logits, teacher.logits, batch.target),
        }

    def observations(self, student, teacher, batch, losses):
        """What the figures of gradients and of GKD's scale show.

        kd_gradient, kd_gradient_abs [1 + RANKS]: gradient of a sample's weighted distillation loss with respect to
        the student's logit of the target and of the teacher's largest other classes, signed and absolute.
        confidence [BINS]: samples by the teacher's largest softened probability, in equal bins of 0..1.
        factor [BINS], with GKD: sum of their factors.
        """
        if "kd" not in losses:  # of a subclass with losses of its own
            return {}
        (gradient,) = torch.autograd.grad(losses["kd"], student.logits, retain_graph=True)
        with torch.no_grad():
            target = batch.target[:, None]
            ranks = min(RANKS, gradient.shape[1] - 1)
            others = teacher.logits.scatter(1, target, -torch.inf).topk(ranks, dim=1).indices
            picked = gradient.gather(1, torch.cat([target, others], dim=1)) * gradient.shape[0]
            if self.scaling is None:
                softened = teacher.logits / self.hyperparameters[self.temperature]
                confidence = F.softmax(softened, dim=1).amax(dim=1)
            else:  # which may have a temperature of its own
                confidence = self.scaling.confidence(teacher.logits)
            bins = torch.arange(BINS, device=gradient.device)
            member = ((confidence * BINS).long().clamp(max=BINS - 1)[:, None] == bins).to(gradient.dtype)
            observed = {
                "kd_gradient": picked.sum(dim=0),
                "kd_gradient_abs": picked.abs().sum(dim=0),
                "confidence": member.sum(dim=0),
            }
            if self.scaling is not None:
                observed["factor"] = self.scaling.sample_factors(teacher.logits) @ member
        return observed

    @abstractmethod
    def distillation_loss(self, logits_student, logits_teacher, target):
        """The weighted loss, 0-d, of student and teacher logits [N, C] and labels [N], before the warm-up."""

"""What a method is to the engine: a module that turns a student, a teacher and a batch into a dict of losses."""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
import torch.nn as nn
import torch.nn.functional as F

from distillbench.methods.dry_pass import bn_before_relu, shapes
from distillbench.tasks.classification.batches import Batch, Output

__all__ = ["Batch", "Context", "LogitMethod", "Method", "Output"]

RANKS, BINS = 5, 20  # of `LogitMethod.observations`
NEEDS = {  # the earlier spelling of `Method.teacher`
    (): "none",
    ("teacher_logits",): "logits",
    ("teacher_logits", "teacher_features"): "network",
}


class Context:
    """What a method may depend on when it is built; what costs time is computed when it is asked for.

    num_classes, num_images: of the training set; labels: int64 [num_images] on the device of training;
    seed: of the run; student_network, teacher_network: the modules, the teacher's frozen and None where the method has
    none. A method that keeps a network keeps it here: as an attribute of its own it would be trained and saved with it.
    """

    def __init__(self, num_classes, image_size=0, labels=(), seed=0, student_network=None, teacher_network=None):
        """image_size: height and width of an image, in pixels."""
        self.num_classes, self.image_size, self.labels, self.seed = num_classes, image_size, labels, seed
        self.student_network, self.teacher_network = student_network, teacher_network

    @property
    def num_images(self):
        return len(self.labels)

    @cached_property
    def student(self):
        """Shapes, channels among them: the `Output` of the student for a batch of two, on the meta device."""
        return shapes(self.student_network, self.image_size)

    @cached_property
    def teacher(self):
        """The same of the teacher, or None."""
        return self.teacher_network and shapes(self.teacher_network, self.image_size)

    @cached_property
    def teacher_bn(self):
        """[(weight [D], bias [D]) or None] of the batch normalisation in front of the ReLU of each of its stages."""
        return bn_before_relu(self.teacher_network, self.image_size)


class Method(nn.Module, ABC):
    """A distillation method: its declaration, and a function from outputs to losses.

    The declaration is literals in the class's own body; planning reads them without importing the file:

    name: the value of `DISTILLER.TYPE`.
    version: raised when the same hyper-parameters give other numbers; part of a run's identity.
    keys: {"TEMPERATURE": Key(...)}, the hyper-parameters, reached as `self.hyperparameters["TEMPERATURE"]`.
    node: the configuration node of its keys; its name, unless it shares the keys of another method.
    teacher: what it uses of the teacher: "none" (the run has no teacher), "logits" (its features are not there), or
        "network" (logits and features). The student's features are always there. Also read in its earlier spelling,
        `needs`: (), ("teacher_logits",), ("teacher_logits", "teacher_features").
    views: augmented views of an image per batch. With more than one, `losses` gets a tuple of outputs, one
        a view, for student and teacher each; with one it gets the output itself.
    capturable: whether a step is the same operations on the same tensors whenever it is called, so that it can be
        recorded once and replayed.
    bibtex: one BibTeX entry, for the report page and the bibliography of the paper folder; optional.
    temperature: for methods with a loss on student against teacher logits, the key that holds its
        temperature; its logits can go through transformations, such as GKD.

    Own modules and buffers are registered as in any `nn.Module`; they are trained, saved and resumed with the
    student and initialised from a random stream of their own.
    """

    keys = {}
    node = None
    teacher = "none"
    views = 1
    capturable = True
    temperature = None

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if "needs" in vars(cls):
            cls.teacher = NEEDS.get(cls.needs, cls.teacher)

    def __init__(self, hyperparameters, context):
        super().__init__()
        self.hyperparameters = hyperparameters
        self.context = context

    def schedule(self, epoch):
        """{name: number} of what changes with the epoch (from 1 on); `losses` gets them as 0-d tensors.

        The names are the same in every epoch.
        """
        return {}

    def forward(self, student, teacher, batch, schedule):
        """(student's outputs, teacher's outputs or None, losses) of a batch: an output a view, losses as of `losses`.

        All that the engine calls in a step. student, teacher: callables from a `Batch` to a tuple of `Output`, one a
        view, the teacher's without gradient (teacher None where nothing of it is needed). The first of the student's
        outputs is the one whose accuracy history.csv has.
        """
        students, teachers = student(batch), teacher and teacher(batch)
        return students, teachers, self.losses(*of_views(students, teachers), batch, schedule)

    @abstractmethod
    def losses(self, student, teacher, batch, schedule):
        """{name: 0-d tensor}, weights included. "ce" is the task's loss, `batch.cross_entropy`, which has the labels
        smoothed and mixed as the run has them; every other is a distillation loss.

        student, teacher: `Output` (teacher None where nothing of it is needed); batch: `Batch`;
        schedule: {name: 0-d tensor}. No value is read back here (`.item()`, `if tensor`, boolean masks):
        a step never waits for the device. A loss may be there in some steps only: history.csv has it averaged over
        all images of the epoch, and empty in an epoch without it.
        """

    def observations(self, student, teacher, batch, losses):
        """{name: 1-d tensor}: sums over the batch that history.csv gets, divided by the number of images, as
        train_NAME_0, train_NAME_1, ... (train_NAME of a 0-d one). Called after `losses`, before the update, in every
        fifth step (`engine.loop.OBSERVED_EVERY`), whose images they are divided by; without effect on the run.
        A name keeps its length, and takes no column of another (images, a metric, loss...).
        """
        return {}

    def settle(self, parts, gather):
        """Called behind every update: what moves once a step, besides what is trained, moves here.

        parts: of how many micro-batches this process has computed the losses in this step; gather: gives the tensors
        [n, ...] of all images of these, in their order, as one of all images of the batch, whose order is the same in
        every call.
        """

    def notes(self):
        """[line of text] of what a user should know before the first step, such as memory that it takes."""
        return []

    def deployed(self, student):
        """The network that is evaluated and saved, as a module from images to (logits, features).

        The student itself, or one that holds it with what it needs of the method and of the context's networks.
        """
        return student


def of_views(*outputs):
    """Tuples of outputs, one a view, as `losses` gets them: with one view, the output itself."""
    return (views if views is None or len(views) > 1 else views[0] for views in outputs)


class LogitMethod(Method):
    """A cross entropy and one loss on student against teacher logits, warmed up linearly.

    ce_weight, warmup: the keys that hold the weight of the cross entropy and the length of the warm-up.
    """

    ce_weight = "LOSS.CE_WEIGHT"
    warmup = "WARMUP"

    def __init__(self, hyperparameters, context, transforms=()):
        """transforms: `transforms.base.Transform`s, which the logits of the distillation loss go through in turn."""
        super().__init__(hyperparameters, context)
        self.transforms = nn.ModuleList(transforms)

    def schedule(self, epoch):
        """The published warm-up: min(epoch / WARMUP, 1), from the first epoch on; 1 without one."""
        length = self.hyperparameters[self.warmup]
        return {"warmup": min(epoch / length, 1.0) if length else 1.0}

    def losses(self, student, teacher, batch, schedule):
        logits = student.logits, teacher.logits
        for transform in self.transforms:
            logits = transform(*logits, batch)
        return {
            "ce": self.hyperparameters[self.ce_weight] * batch.cross_entropy(student.logits),
            "kd": schedule["warmup"] * self.distillation_loss(*logits, batch.target),
        }

    def observations(self, student, teacher, batch, losses):
        """What the figure of gradients shows, and what the transformations have to show.

        kd_gradient, kd_gradient_abs [1 + RANKS]: gradient of a sample's weighted distillation loss with respect to
        the student's logit of the target and of the teacher's largest other classes, signed and absolute.
        confidence [BINS]: samples by the teacher's largest softened probability, in equal bins of 0..1, or by
        that of a transform which has one of its own.
        """
        if "kd" not in losses:  # of a subclass with losses of its own
            return {}
        (gradient,) = torch.autograd.grad(losses["kd"], student.logits, retain_graph=True)
        with torch.no_grad():
            target = batch.target[:, None]
            ranks = min(RANKS, gradient.shape[1] - 1)
            others = teacher.logits.scatter(1, target, -torch.inf).topk(ranks, dim=1).indices
            picked = gradient.gather(1, torch.cat([target, others], dim=1)) * gradient.shape[0]
            seen = self._seen(student, teacher, batch)
            confidence = None
            for transform, logits in seen:
                confidence = transform.confidence(logits, confidence)
            if confidence is None:
                confidence = F.softmax(teacher.logits / self.hyperparameters[self.temperature], dim=1).amax(dim=1)
            bins = torch.arange(BINS, device=gradient.device)
            member = ((confidence * BINS).long().clamp(max=BINS - 1)[:, None] == bins).to(gradient.dtype)
            observed = {
                "kd_gradient": picked.sum(dim=0),
                "kd_gradient_abs": picked.abs().sum(dim=0),
                "confidence": member.sum(dim=0),
            }
            for transform, logits in seen:
                observed |= transform.observations(logits, batch, member)
        return observed

    def _seen(self, student, teacher, batch):
        """[(transform, the teacher's logits that it gets in the loss)]"""
        seen, logits = [], (student.logits, teacher.logits)
        for number, transform in enumerate(self.transforms, 1):
            seen.append((transform, logits[1]))
            if number < len(self.transforms):
                logits = transform(*logits, batch)
        return seen

    @abstractmethod
    def distillation_loss(self, logits_student, logits_teacher, target):
        """The weighted loss, 0-d, of student and teacher logits [N, C] and labels [N], before the warm-up."""

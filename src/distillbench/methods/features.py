"""What methods on features share: their two losses, and maps of two networks at one size."""

from abc import abstractmethod

import torch
import torch.nn.functional as F

from distillbench.methods.base import Method


class FeatureMethod(Method):
    """A cross entropy and one loss on the features of student and teacher.

    ce_weight, feature_weight: the keys that hold their weights; reads: entries of the dictionary of features. Raises
    UserError, when it is built, for a network that cannot give one of these.
    """

    ce_weight = "LOSS.CE_WEIGHT"
    feature_weight = "LOSS.FEAT_WEIGHT"
    reads = ()

    def __init__(self, hyperparameters, context):
        super().__init__(hyperparameters, context)
        for feature in self.reads:
            context.student.features[feature], context.teacher.features[feature]

    def losses(self, student, teacher, batch, schedule):
        loss = self.distillation_loss(student, teacher, batch, schedule)
        return {
            "ce": self.hyperparameters[self.ce_weight] * batch.cross_entropy(student.logits),
            "kd": self.hyperparameters[self.feature_weight] * loss,
        }

    @abstractmethod
    def distillation_loss(self, student, teacher, batch, schedule):
        """The loss, 0-d, before its weight; arguments as of `losses`."""


class StageMethod(FeatureMethod):
    """One whose loss is a sum over the stages behind the stem; where two differ in size the larger is averaged down.

    Its key OFFICIAL says which stages belong together, as of `stages`.
    """

    reads = ("feats",)

    def distillation_loss(self, student, teacher, batch, schedule):
        return sum(self.stage_losses(student, teacher))

    def stage_losses(self, student, teacher):
        """[0-d loss] of each pair of stages."""
        pairs = stages(student, teacher, self.hyperparameters["OFFICIAL"])
        return [self.stage_loss(*at_one_size(*pair)) for pair in pairs]

    @abstractmethod
    def stage_loss(self, maps_student, maps_teacher):
        """The loss, 0-d, of maps [N, C, H, W] and [N, C', H, W]."""


def stages(student, teacher, official="paper"):
    """[(student's maps, teacher's maps)] of two `Output`s, the deepest last.

    official: "paper" pairs the stages behind the stem from the deepest on, so that the first ones are left out where
    one network has more; "mdistiller" the published lists of maps from their second entries on, wherever these lie.
    """
    if official == "mdistiller":
        return list(zip(*(output.features["feats"][1:] for output in (student, teacher)), strict=False))
    return list(zip(*(reversed(output.stages()) for output in (student, teacher)), strict=False))[::-1]


def at_one_size(first, second):
    """Two sets of maps [N, C, H, W], the larger averaged down to the height and width of the smaller."""
    height, width = (min(sizes) for sizes in zip(first.shape[2:], second.shape[2:], strict=True))
    return averaged_to(first, height, width), averaged_to(second, height, width)


def averaged_to(maps, height, width):
    """Maps [N, C, H, W] averaged down to another height and width, or repeated up to it."""
    tall, wide = maps.shape[2:]
    if (tall, wide) == (height, width):
        return maps
    if tall % height == wide % width == 0:  # the same; the adaptive one adds in an order of its own on a GPU
        return F.avg_pool2d(maps, (tall // height, wide // width))
    return F.adaptive_avg_pool2d(maps, (height, width))


@torch.no_grad()
def see_noise(context):
    """What mdistiller does where it looks for the shapes of features: a noise image, in training mode.

    It moves the running statistics of both networks, the frozen teacher's too, a tenth of the way to those of noise.
    """
    image = torch.randn(1, 3, context.image_size, context.image_size)
    for network in filter(None, (context.student_network, context.teacher_network)):
        training, weight = network.training, next(network.parameters())
        network.train()(image.to(weight))
        network.train(training)

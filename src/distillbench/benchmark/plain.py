"""R0: knowledge distillation on CIFAR-100 in plain PyTorch and torchvision, as a competent user writes it.

Nothing of the engine is in here. The next rungs are this loop with one of its arguments changed.
"""

import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import CIFAR100

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


class Images(CIFAR100):
    """torchvision's dataset, which also says which image it gives, as published code of distillation has it."""

    def __getitem__(self, index):
        return *super().__getitem__(index), index


def loader(folder, batch, workers, pinned):
    """Shuffled batches (images [N, 3, 32, 32], labels [N], indices [N]) of the training images in a folder."""
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    images = Images(folder, transform=transforms.Compose(steps))
    options = {"num_workers": workers, "pin_memory": pinned, "persistent_workers": workers > 0}
    return DataLoader(images, batch, shuffle=True, **options)


def endless(batches):
    while True:
        yield from batches


def train(batches, student, teacher, losses, update, device, memory=torch.contiguous_format, read_back=True):
    """Yield (number of images, loss) of each step.

    losses: of the outputs of student and teacher, images, labels and indices, {name: 0-d tensor}; update: of
    `optimizer`; memory: the format of the images; read_back: whether the loss is a number, for which the step waits.
    """
    student.train()
    teacher.eval()
    for images, target, index in batches:
        images = images.to(device, non_blocking=True, memory_format=memory)
        target, index = target.to(device, non_blocking=True), index.to(device, non_blocking=True)
        with torch.no_grad():
            taught = teacher(images)
        values = losses(student(images), taught, images, target, index)
        update(values)
        loss = sum(values.values()).detach()
        yield len(target), loss.item() if read_back else loss


def optimizer(parameters, schedule, fused=None):
    """SGD: a function that updates the parameters by a dict of losses. schedule: LR, MOMENTUM and WEIGHT_DECAY."""
    sgd = torch.optim.SGD(
        parameters, schedule["LR"], schedule["MOMENTUM"], weight_decay=schedule["WEIGHT_DECAY"], fused=fused
    )

    def update(losses):
        sgd.zero_grad()
        sum(losses.values()).backward()
        sgd.step()

    return update


def dot_optimizer(parameters, schedule, delta, fused=None):
    """The same for DOT: an SGD each for the task's loss, "ce", and the others, with momenta that lie 2 DELTA apart."""
    lr, momentum, decay = schedule["LR"], schedule["MOMENTUM"], schedule["WEIGHT_DECAY"]
    task = torch.optim.SGD(parameters, lr, momentum - delta, weight_decay=decay, fused=fused)
    distillation = torch.optim.SGD(parameters, lr, momentum + delta, fused=fused)

    def update(losses):
        taught = sum(loss for name, loss in losses.items() if name != "ce")
        labelled = torch.autograd.grad(losses["ce"], parameters, retain_graph=True)
        for half, gradients in ((task, labelled), (distillation, torch.autograd.grad(taught, parameters))):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            half.step()

    return update

"""CRD: contrastive representation distillation (Tian, Krishnan, Isola, ICLR 2020, arXiv:1910.10699, section 3.1).

    loss = CE_WEIGHT * CE(z_s, y) + FEAT_WEIGHT * (NCE(s, memory of t) + NCE(t, memory of s))

s and t are the pooled features of student and teacher, mapped linearly to FEAT.DIM and scaled to unit norm. A memory
holds such a vector of every training image. With the scores of a batch taken, its images' entries move to the new
vectors, a share of NCE.MOMENTUM staying, and are scaled again. The score of x with an entry m is

    p = exp(x . m / TEMPERATURE) / Z,    Z the number of images N times the mean of the first batch

and of the scores of a positive, p_0, and of K negatives, p_k,

    NCE = -log(p_0 / (p_0 + K / N)) - sum over k of log((K / N) / (p_k + K / N)),    averaged over the batch

The positive is the image itself, with MODE relax any image of its class. Negatives are drawn from the images of all
other classes, independently of each other, as the published code does on ImageNet; on CIFAR-100 it draws none twice.
What is drawn is a hash of the seed, the epoch, the image and k, computed in the step: no list of negatives is kept.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from distillbench.config.keys import Key
from distillbench.methods.features import FeatureMethod

EPSILON = 1e-7  # in the logarithms, as published
TEMPERATURE, Z_STUDENT, Z_TEACHER, MOMENTUM = range(1, 5)  # in `params`


class CRD(FeatureMethod):
    name = "CRD"
    version = 1
    teacher = "network"
    keys = {
        "MODE": Key("exact", "the positive is the image itself, or any of its class", choices=("exact", "relax")),
        "FEAT.DIM": Key(128, "length of an embedding", minimum=1),
        "FEAT.STUDENT_DIM": Key(
            256,
            "published key, without effect: the student's pooled features",
            minimum=1,
            identity=False,
            why="the shapes come from the networks",
        ),
        "FEAT.TEACHER_DIM": Key(
            256,
            "published key, without effect: the teacher's pooled features",
            minimum=1,
            identity=False,
            why="the shapes come from the networks",
        ),
        "LOSS.CE_WEIGHT": Key(1.0, "weight of the cross entropy", minimum=0),
        "LOSS.FEAT_WEIGHT": Key(0.8, "weight of the contrastive loss", minimum=0),
        "NCE.K": Key(16384, "negatives of an image", minimum=1),
        "NCE.MOMENTUM": Key(0.5, "of the memory: how much of an embedding stays", minimum=0, maximum=1),
        "NCE.TEMPERATURE": Key(0.07, "of the scores", above=0),
    }
    bibtex = """\
@inproceedings{tian2020crd,
  title = {Contrastive Representation Distillation},
  author = {Tian, Yonglong and Krishnan, Dilip and Isola, Phillip},
  booktitle = {International Conference on Learning Representations},
  year = {2020},
}
"""

    def __init__(self, hyperparameters, context):
        super().__init__(hyperparameters, context)
        dimension = hyperparameters["FEAT.DIM"]
        self.embed_s, self.embed_t = (
            Embedding(output.pooled.shape[1], dimension) for output in (context.student, context.teacher)
        )
        self.contrast = Contrast(context.num_images, dimension, hyperparameters)
        self.pairs = Pairs(context.labels, context.num_classes, hyperparameters)

    def schedule(self, epoch):
        return {"epoch": float(epoch)}

    def distillation_loss(self, student, teacher, batch, schedule):
        embeddings = self.embed_s(student.pooled), self.embed_t(teacher.pooled)
        return self.contrast(*embeddings, batch.index, self.pairs(batch, schedule["epoch"]))

    def settle(self, parts, gather):
        self.contrast.remember(parts, gather)

    def notes(self):
        memory = self.contrast.memory_v1
        size, image = 2 * memory.nbytes / 1e9, len(memory) * memory.itemsize / 1e6
        shape = " x ".join(map(str, memory.shape))
        rest = f"a step takes another {image:.2g} MB an image of the batch"
        return [f"CRD remembers 2 x {shape} numbers, {size:.2g} GB; {rest}"]


class Embedding(nn.Module):
    """From features [N, D] to vectors of unit norm, [N, dimension]."""

    def __init__(self, features, dimension):
        super().__init__()
        self.linear = nn.Linear(features, dimension)

    def forward(self, features):
        return F.normalize(self.linear(features))


class Contrast(nn.Module):
    """The memories of both embeddings, and the loss against them.

    memory_v1, memory_v2: [images, dimension], of the student and of the teacher; params: K, temperature, Z of the
    student's and of the teacher's scores (negative before the first batch), momentum; all as published.
    """

    def __init__(self, num_images, dimension, hyperparameters):
        super().__init__()
        number, temperature, momentum = (hyperparameters[f"NCE.{name}"] for name in ("K", "TEMPERATURE", "MOMENTUM"))
        self.register_buffer("params", torch.tensor([number, temperature, -1.0, -1.0, momentum]))
        for name in ("memory_v1", "memory_v2"):
            bound = (3 / dimension) ** 0.5
            self.register_buffer(name, torch.empty(num_images, dimension).uniform_(-bound, bound))
        self.seen = []  # [index, embeddings, levels] of a batch whose images are not remembered yet

    def forward(self, student, teacher, index, contrasted):
        """The loss, 0-d, of embeddings [N, dimension] of images at index [N]; contrasted: [N, 1 + K] positions in the
        training set.
        """
        losses, levels = zip(
            self._nce(student, self.memory_v2, Z_STUDENT, contrasted),
            self._nce(teacher, self.memory_v1, Z_TEACHER, contrasted),
            strict=True,
        )
        self.seen.append([index, student.detach(), teacher.detach(), *levels])
        return sum(losses)

    def _nce(self, embedding, memory, place, contrasted):
        """(NCE of one side, 0-d; each image's mean score, [N], of which the first batch sets its Z, at a place)"""
        scores = torch.exp((embedding @ memory.T).gather(1, contrasted) / self.params[TEMPERATURE])
        levels = scores.detach().mean(dim=1)
        return nce_loss(scores / self._z(place, levels), len(memory)), levels

    def _z(self, place, levels):
        return torch.where(self.params[place] < 0, levels.mean(dim=0) * len(self.memory_v1), self.params[place])

    @torch.no_grad()
    def remember(self, batches, gather):
        """Move Z and the entries of the images of the last batches; gather: as of `Method.settle`."""
        seen, self.seen = self.seen[-batches:], []
        index, student, teacher, *levels = (gather(torch.cat(tensors)) for tensors in zip(*seen, strict=True))
        for place, level in zip((Z_STUDENT, Z_TEACHER), levels, strict=True):
            self.params[place].copy_(self._z(place, level))
        for embedding, memory in ((student, self.memory_v1), (teacher, self.memory_v2)):
            kept = self.params[MOMENTUM]
            moved = kept * memory.index_select(0, index) + (1 - kept) * embedding
            memory.index_copy_(0, index, F.normalize(moved))


def nce_loss(scores, num_images):
    """NCE of normalised scores [N, 1 + K], the positive's first, averaged over the batch: 0-d."""
    noise = (scores.shape[1] - 1) / num_images
    positives, negatives = scores[:, :1], scores[:, 1:]
    found = torch.log(positives / (positives + noise + EPSILON)).sum()
    rejected = torch.log(noise / (negatives + noise + EPSILON)).sum()
    return -(found + rejected) / len(scores)


class Pairs(nn.Module):
    """For the images of a batch, those that they are contrasted with, as a function of seed, epoch, image and k.

    key: 32 bits, drawn from the seed. Images are counted in the order of their classes, so that those of all other
    classes are before and behind those of one: order [images]; first, number [classes], of the images of each.
    """

    def __init__(self, labels, num_classes, hyperparameters):
        super().__init__()
        self.negatives, self.relaxed = hyperparameters["NCE.K"], hyperparameters["MODE"] == "relax"
        self.register_buffer("key", torch.randint(2**32, ()))
        number = torch.bincount(labels, minlength=num_classes)
        order = {"order": labels.argsort(stable=True), "number": number, "first": number.cumsum(0) - number}
        for name, tensor in order.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, batch, epoch):
        """Positions in the training set, int64 [N, 1 + K], the positive first; epoch: 0-d."""
        places = mixed(torch.arange(1 + self.negatives, device=batch.index.device))
        images = mixed(mixed(self.key + epoch.long()) ^ batch.index)
        draws = mixed(images[:, None] ^ places)
        first, number = (counts.index_select(0, batch.target)[:, None] for counts in (self.first, self.number))
        others = below(len(self.order) - number, draws[:, 1:])
        negatives = self.order.take(others + number * (others >= first))
        positive = self.order.take(first + below(number, draws[:, :1])) if self.relaxed else batch.index[:, None]
        return torch.cat([positive, negatives], dim=1)


def mixed(numbers):
    """A hash of int64 numbers to 32 bits each: no product in it needs more than 63."""
    for _ in range(2):
        numbers = ((numbers ^ numbers >> 16) * 0x45D9F3B) & 0xFFFFFFFF
    return numbers ^ numbers >> 16


def below(limit, draws):
    """32 random bits each to whole numbers from 0 to limit - 1."""
    return draws * limit >> 32

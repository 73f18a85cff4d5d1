"""What a classifier's batches and its evaluation add up to: loss on the labels, hits, their averages."""

import torch
import torch.nn.functional as F

HITS = {"top1": 1, "top5": 5}  # the label is among so many first classes


def label_losses(output, target):
    """{"ce": cross entropy, 0-d} of an `Output` and labels [N]."""
    return {"ce": F.cross_entropy(output.logits, target)}


def hits(output, target):
    """{name: how many images}, 0-d, of an `Output` and labels [N]."""
    rank = target_rank(output.logits, target)
    return {name: (rank < first).sum(dtype=output.logits.dtype) for name, first in HITS.items()}


def target_rank(logits, target):
    """[N]: how many classes come before the label; of classes with equal logits the one with the smaller number.

    It decides every accuracy, of histories and predictions, so that devices and tables cannot differ in ties.
    """
    own, classes = logits.gather(1, target[:, None]), torch.arange(logits.shape[1], device=logits.device)
    return torch.where(classes < target[:, None], logits >= own, logits > own).sum(dim=1)


def per_image(name, value, images):
    """What history.csv has of a sum over images: hits in percent, everything else as it is."""
    return (100 * value if name in HITS else value) / images

"""What predictions.npz keeps of logits and labels; `predictions` reads it."""

import hashlib

import numpy as np
import torch

from distillbench.errors import RunFailed
from distillbench.tasks.classification.predictions import SHARD
from distillbench.tasks.classification.training import target_rank

FIRST = 5  # classes that are kept by rank


class Stored:
    """What is stored of the images of a split, whose logits are added batch by batch in their order.

    Logits are kept in fp16. What fp16 would decide otherwise is kept as computed: the target's rank [N], the first
    five classes [N, 5], the largest logit, the target's and the log-sum-exp, [N] each. Ranks are computed of a shard at
    a time: neither the logits as computed nor what sorting them takes is ever there of all images at once.
    """

    def __init__(self, num_images):
        self.num_images, self.filled, self.waiting, self.arrays = num_images, 0, [], {}

    def add(self, logits, target):
        """logits [n, C], as computed; target: labels [n]. Raises RunFailed if a logit is not finite in fp16."""
        self.waiting.append((logits, target))
        if sum(logits.numel() for logits, _ in self.waiting) >= SHARD:
            self._keep()

    def content(self):
        """{name: array} of all images. Raises as `add`."""
        self._keep()
        return {**self.arrays, "targets_sha256": hashlib.sha256(self.arrays["targets"]).hexdigest()}

    def _keep(self):
        if not self.waiting:
            return
        logits, target = map(torch.cat, zip(*self.waiting, strict=True))
        self.waiting.clear()
        halved = logits.to(torch.float16)
        if beyond := int((~halved.isfinite()).any(dim=1).sum()):
            largest = logits.abs().max().item()
            counted = f"{beyond} of {len(logits)} images"
            raise RunFailed(f"the logits of {counted} are beyond fp16, the largest is {largest:.3g}")
        kept = {**ranked(logits, target), "logits": halved, "targets": target.to(torch.int32)}
        for name, tensor in kept.items():
            array = tensor.cpu().numpy()
            if name not in self.arrays:
                self.arrays[name] = np.empty((self.num_images, *array.shape[1:]), array.dtype)
            self.arrays[name][self.filled : self.filled + len(array)] = array
        self.filled += len(target)


def ranked(logits, target):
    """{name: tensor} of `predictions.RANKS`."""
    first = logits.sort(dim=1, descending=True, stable=True)  # of equal logits the smaller class comes first
    return {
        "target_rank": target_rank(logits, target).to(torch.int32),
        "first_classes": first.indices[:, :FIRST].to(torch.int32),
        "first_logit": first.values[:, 0],
        "target_logit": logits.gather(1, target[:, None]).squeeze(1),
        "log_sum_exp": logits.logsumexp(dim=1),
    }

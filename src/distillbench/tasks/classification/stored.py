"""What predictions.npz keeps of logits and labels; `predictions` reads it."""

import hashlib

import numpy as np
import torch

from distillbench.errors import RunFailed
from distillbench.tasks.classification.training import target_rank

FIRST = 5  # classes that are kept by rank


def to_store(logits, target):
    """{name: array} of logits [N, C], as computed, and labels [N].

    Logits are kept in fp16. What fp16 would decide otherwise is kept as computed: the target's rank [N], the first
    five classes [N, 5], the largest logit, the target's and the log-sum-exp, [N] each.
    Raises RunFailed if a logit is not finite in fp16.
    """
    halved, targets = logits.to(torch.float16), target.cpu().numpy().astype(np.int32)
    if beyond := int((~halved.isfinite()).any(dim=1).sum()):
        largest = logits.abs().max().item()
        raise RunFailed(f"the logits of {beyond} of {len(logits)} images are beyond fp16, the largest is {largest:.3g}")
    kept = {name: tensor.cpu().numpy() for name, tensor in {**ranked(logits, target), "logits": halved}.items()}
    return {**kept, "targets": targets, "targets_sha256": hashlib.sha256(targets).hexdigest()}


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

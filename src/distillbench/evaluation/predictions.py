"""Predictions of finished runs: the primary artefact, from which every metric is computed."""

import hashlib
import io

import numpy as np
import torch

from distillbench.config.implemented import require_predictable
from distillbench.engine.device import prepare_device
from distillbench.engine.feed import Split
from distillbench.engine.run import require_images
from distillbench.engine.weights import load_run
from distillbench.errors import RunFailed
from distillbench.files import write_atomically
from distillbench.store.layout import evaluation_directory
from distillbench.tasks.classification.training import target_rank

FIRST = 5  # classes that are kept by rank


@torch.inference_mode()
def predict(run, checkpoint, images, device="auto"):
    """Write predictions.npz of a finished run, in the order of the test split.

    Logits [N, C] are kept in fp16. What fp16 would decide otherwise is kept as computed in the run's precision: the
    target's rank [N], the first five classes [N, 5], the largest logit, the target's and the log-sum-exp, [N] each.

    run: the run's directory; checkpoint: "last" or "best"; images: `data.Images` of the run's dataset.
    Raises UserError if this code does not predict what the run's specification stands for, RunFailed if a logit is
    not finite in fp16.
    """
    specification, network, digest = load_run(run, checkpoint)
    require_predictable(specification)
    require_images(specification, images)
    device = prepare_device(specification, device)
    test = Split.put(*images.test, specification, device)
    network = network.to(device=device, dtype=test.mean.dtype, memory_format=torch.channels_last).eval()
    logits = torch.cat([network(images)[0] for images, _ in test.batches()])
    content = {**ranked(logits, test.labels), "logits": logits.to(torch.float16)}
    if beyond := int((~content["logits"].isfinite()).any(dim=1).sum()):
        largest = logits.abs().max().item()
        raise RunFailed(
            f"{specification.id}: the logits of {beyond} of {len(logits)} test images are beyond fp16, the largest is"
            f" {largest:.3g} ({checkpoint}); the training diverged: lower SOLVER.LR"
        )
    targets = images.test_labels.astype(np.int32)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        **{name: tensor.cpu().numpy() for name, tensor in content.items()},
        targets=targets,
        targets_sha256=hashlib.sha256(targets).hexdigest(),
        dataset_sha256=images.digest,
        run_sha256=specification.digest,
        weights_sha256=digest,
        precision=specification["precision"],
    )
    write_atomically(evaluation_directory(run, checkpoint) / "predictions.npz", buffer.getvalue())


def ranked(logits, target):
    """What predictions keep beside the logits [N, C] in fp16, of the logits as computed and the labels [N]."""
    first = logits.sort(dim=1, descending=True, stable=True)  # of equal logits the smaller class comes first
    return {
        "target_rank": target_rank(logits, target).to(torch.int32),
        "first_classes": first.indices[:, :FIRST].to(torch.int32),
        "first_logit": first.values[:, 0],
        "target_logit": logits.gather(1, target[:, None]).squeeze(1),
        "log_sum_exp": logits.logsumexp(dim=1),
    }

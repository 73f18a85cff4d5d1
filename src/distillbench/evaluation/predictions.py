"""Predictions of finished runs: the primary artefact, from which every metric is computed."""

import io
from pathlib import Path

import numpy as np
import torch

from distillbench import tasks
from distillbench.config.implemented import require_predictable
from distillbench.engine.device import prepare_device
from distillbench.engine.run import require_images
from distillbench.engine.stream import put
from distillbench.engine.weights import load_run
from distillbench.errors import RunFailed
from distillbench.files import write_atomically
from distillbench.store.layout import evaluations


@torch.inference_mode()
def predict(run, checkpoint, images, device="auto", workers=None):
    """Write predictions.npz of a finished run, in the order of the evaluated split: what its task stores of them.

    run: the run's directory; checkpoint: "last" or "best"; images: `data.Images` or `data.Files` of the run's
    dataset; workers: as of `stream.put`.
    Raises UserError if this code does not predict what the run's specification stands for, RunFailed if a prediction
    cannot be stored.
    """
    specification, network, digest = load_run(run, checkpoint, images)
    require_predictable(specification)
    require_images(specification, images)
    device = prepare_device(specification, device)
    test = put(images.test, specification, device, workers)
    network = network.to(device=device, dtype=test.mean.dtype, memory_format=torch.channels_last).eval()
    outputs, labels = zip(*((network(images)[0], target) for images, target in test.batches()), strict=True)
    try:
        content = tasks.part(specification["task"], "stored").to_store(torch.cat(outputs), torch.cat(labels))
    except RunFailed as reason:
        raise RunFailed(
            f"{specification.id}: {reason} ({checkpoint}); the training diverged: lower SOLVER.LR"
        ) from None
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        **content,
        dataset_sha256=images.digest,
        run_sha256=specification.digest,
        weights_sha256=digest,
        precision=specification["precision"],
    )
    folder = evaluations(specification)[checkpoint].folder
    write_atomically(Path(run) / folder / "predictions.npz", buffer.getvalue())

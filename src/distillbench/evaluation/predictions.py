"""Predictions of finished runs: the primary artefact, from which every metric is computed."""

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
from distillbench.files import writing
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
    stored = tasks.part(specification["task"], "stored").Stored(len(test.labels))
    try:
        for batch, target in test.batches():
            stored.add(network(batch)[0], target)
        content = stored.content()
    except RunFailed as reason:
        raise RunFailed(
            f"{specification.id}: {reason} ({checkpoint}); the training diverged: lower SOLVER.LR"
        ) from None
    folder = evaluations(specification)[checkpoint].folder
    with writing(Path(run) / folder / "predictions.npz") as file:
        np.savez_compressed(
            file,
            **content,
            dataset_sha256=images.digest,
            run_sha256=specification.digest,
            weights_sha256=digest,
            precision=specification["precision"],
        )

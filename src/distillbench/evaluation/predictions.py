"""Predictions of finished runs: the primary artefact, from which every metric is computed."""

import hashlib
import io

import numpy as np
import torch

from distillbench.engine.learner import evaluation_logits
from distillbench.engine.run import prepare_device, put_images
from distillbench.engine.weights import load_run
from distillbench.evaluation import evaluation_directory
from distillbench.files import write_atomically


@torch.inference_mode()
def predict(run, checkpoint, images, device="auto"):
    """Write predictions.npz of a finished run: logits in fp16 [N, C] in the order of the test split.

    run: the run's directory; checkpoint: "last" or "best"; images: `data.Images` of the run's dataset.
    """
    specification, network, digest = load_run(run, checkpoint)
    device = prepare_device(specification, device)
    _, test = put_images(specification, images, device)
    network = network.to(device=device, dtype=test.mean.dtype, memory_format=torch.channels_last).eval()
    logits = torch.cat([logits for logits, _ in evaluation_logits(network, test)])
    targets = images.test_labels.astype(np.int32)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        logits=logits.to(torch.float16).cpu().numpy(),
        targets=targets,
        targets_sha256=hashlib.sha256(targets).hexdigest(),
        dataset_sha256=specification["dataset"]["sha256"],
        run_sha256=specification.digest,
        weights_sha256=digest,
    )
    write_atomically(evaluation_directory(run, checkpoint) / "predictions.npz", buffer.getvalue())

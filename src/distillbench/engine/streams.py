"""Random streams: every random choice is a function of the seed and of what it is for."""

import hashlib
from contextlib import contextmanager

import torch


def stream_seed(seed, *purpose):
    """A 63-bit number for a purpose, e.g. stream_seed(0, "order", 17): independent streams per purpose."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed, *purpose):
    """A CPU generator at the start of a stream. Draws are made on the CPU, so that devices agree."""
    return torch.Generator().manual_seed(stream_seed(seed, *purpose))


@contextmanager
def drawing_from(seed, *purpose, device=None):
    """Inside, torch's global generators, of the CPU and of a device, are a stream; outside they stay as they were."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(stream_seed(seed, *purpose))
        yield


def initialisation(seed, *purpose):
    """`drawing_from` for modules that are built, on the CPU, and draw their weights."""
    return drawing_from(seed, *purpose)

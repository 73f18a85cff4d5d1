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
def initialisation(seed, *purpose):
    """Inside, torch's global generator is a stream; modules built there draw their weights from it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, *purpose))
        yield

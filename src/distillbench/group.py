"""The processes that train a run together: one, or those that torchrun started.

What a run keeps (weights, optimizer, sums) is the same in all of them, as gradients and sums are added up in every
step. The first one decides, writes and speaks.
"""

import atexit
import os
from contextlib import contextmanager
from datetime import timedelta

from distillbench.errors import RunFailed


class Alone:
    """A group of one process: what is over all processes is here already."""

    rank, size = 0, 1

    def device(self, wanted):
        """The device of this process, as `--device` names it."""
        return wanted

    def sum(self, tensors):
        """Add each tensor up over the processes, in place: to the same bits in all of them."""

    def gather(self, tensor, counts):
        """The tensors [n, ...] of all processes in one, in the order of the processes; counts: n of each."""
        return tensor

    def collect(self, value):
        """[the value of each process]: of plain ones of Python, and tensors on the CPU."""
        return [value]

    def tell(self, value=None):
        """What the first process tells the others, which wait for it."""
        return self.collect(value)[0]


class Processes(Alone):
    """The processes in the default group of `torch.distributed`, of one machine or several.

    Raises RunFailed where another one has stopped.
    """

    def __init__(self, rank, size):
        self.rank, self.size = rank, size

    def device(self, wanted):
        import torch

        ours = wanted in ("auto", "cuda") and torch.cuda.is_available()
        return f"cuda:{os.environ['LOCAL_RANK']}" if ours else wanted

    def sum(self, tensors):
        import torch
        import torch.distributed as dist

        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in alike])
            with _together():
                dist.all_reduce(flat)
            for tensor, part in zip(alike, flat.split([tensor.numel() for tensor in alike]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, tensor, counts):
        import torch
        import torch.distributed as dist

        parts = [tensor.new_empty(count, *tensor.shape[1:]) for count in counts]
        parts[self.rank].copy_(tensor)
        for rank, part in enumerate(parts):
            with _together():
                dist.broadcast(part, rank)
        return torch.cat(parts)

    def collect(self, value):
        import torch.distributed as dist

        values = [None] * self.size
        with _together():
            dist.all_gather_object(values, value)
        return values


def is_alone():
    """Whether torchrun started no other process with this one."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1"


def joined():
    """The group of this process: those that torchrun started with it, else it is alone."""
    if is_alone():
        return Alone()
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():  # a day: the first process may wait for another that has its run
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(days=1))
        atexit.register(dist.destroy_process_group)
    return Processes(dist.get_rank(), dist.get_world_size())


@contextmanager
def _together():
    try:
        yield
    except RuntimeError:  # of gloo and NCCL, where a connection ends
        raise RunFailed("another process of this run has stopped") from None

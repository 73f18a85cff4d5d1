"""Where a benchmark was measured."""

from importlib.metadata import version

import torch

from distillbench.benchmark.obstacles import cores, threads_and_processes
from distillbench.engine.record import provenance


def environment(device):
    """That of a run's record, with what else decides a plain loop's speed. device: torch's."""
    threads, processes = threads_and_processes(device)
    found = provenance(device, threads or torch.get_num_threads())
    found["versions"] |= {name: version(name) for name in ("torchvision", "pillow")}
    return {**found, "cores": cores(), "processes": processes, "cuda": torch.version.cuda}

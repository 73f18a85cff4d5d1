"""What a device and a method do not allow, in words."""

import os

from distillbench.benchmark.ladder import Obstacles
from distillbench.config import components
from distillbench.engine.device import require_precision
from distillbench.environment import mps_problem
from distillbench.errors import UserError
from distillbench.store.tables import replaces_teacher

CORES = 2  # of a CPU, that a rung has: two threads in one process, or one in each of two
ON_A_GPU = 4  # processes of the rungs with several


def threads_and_processes(device):
    """(threads of a process that runs alone, processes of the rungs with several)."""
    return (None, ON_A_GPU) if device.type == "cuda" else (min(CORES, cores()), CORES)


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def obstacles(specification, device):
    """`Obstacles` of a specification on a torch device."""
    name = specification["method"]["name"]
    return Obstacles(
        graph=_graph(name, device),
        table="" if replaces_teacher(specification) else f"{name} needs more of the teacher than its logits",
        bf16=_refused(lambda: require_precision("bf16", device)),
        processes=_processes(device),
    )


def _graph(method, device):
    if device.type != "cuda":
        return "CUDA graphs need a GPU"
    return "" if components.methods()[method]["capturable"] else f"{method} declares capturable = False"


def _refused(check):
    try:
        check()
    except UserError as error:
        return str(error)
    return ""


def _processes(device):
    if device.type != "cuda":
        return "" if cores() >= CORES else f"{CORES} processes need {CORES} cores, here is {cores()}"
    problem = mps_problem()
    return problem and f"no MPS daemon answers ({problem}), and processes that take turns gain nothing"

"""The device of a run, and the arithmetic on it."""

import ctypes
import os
from contextlib import contextmanager

import torch

from distillbench.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def prepare_device(specification, device, deterministic=False):
    """Set threads and arithmetic as the specification says; the torch device ("auto": CUDA if there is one).

    deterministic: whether operations of a GPU that add in an order of their own are replaced, or refused by torch; on a
    CPU there are none.
    Raises UserError for a device that is not here.
    """
    torch.set_num_threads(specification["threads"])
    torch.backends.cudnn.conv.fp32_precision = "tf32" if specification["precision"] == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    # not use_deterministic_algorithms, which in newer versions of torch imports a compiler, for two seconds
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # no operation here reads any
    torch.backends.cudnn.benchmark = not deterministic
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()  # not on "meta"
    except Exception as error:  # of half a dozen types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--device {device}: not usable here ({reason:.200}); cpu always is") from None
    if found.index is not None and found.type == "cuda":
        torch.cuda.set_device(found)
    if found.type == "cpu":
        keep_freed_memory()
    return found


def effective_precision(precision, device):
    """That in which convolutions of a run are computed on a torch device: tf32 is fp32 where there is none."""
    has_tf32 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "fp32" if precision == "tf32" and not has_tf32 else precision


def require_precision(precision, device):
    """Raises UserError for bf16 on a torch device without it."""
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        try:
            has_bf16 = any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)
        except AttributeError:  # an older torch
            has_bf16 = False
    if precision == "bf16" and not has_bf16:
        raise UserError(f"SOLVER.PRECISION: bf16: this {device.type} has no such arithmetic; choose fp32 or tf32")


@contextmanager
def computing_in(precision, device_type):
    """Inside, convolutions are computed in a precision of the specification. Under autocast linear layers are, too."""
    if precision == "bf16":
        with torch.autocast(device_type, torch.bfloat16):
            yield
        return
    convolutions = torch.backends.cudnn.conv
    before, convolutions.fp32_precision = convolutions.fp32_precision, "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def keep_freed_memory():
    """Let glibc reuse a step's large blocks: by default it returns them to the system and gets them anew, page by
    page, which took a tenth of a small network's training time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # glibc
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)

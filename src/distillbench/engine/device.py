"""The device of a run, and the arithmetic on it."""

import ctypes

import torch

from distillbench.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def prepare_device(specification, device):
    """Set threads and arithmetic as the specification says; the torch device ("auto": CUDA if there is one).

    Raises UserError for a device that is not here.
    """
    torch.set_num_threads(specification["threads"])
    precision = "tf32" if specification["precision"] == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = precision
    torch.backends.cuda.matmul.fp32_precision = precision
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()  # not on "meta"
    except Exception as error:  # of half a dozen types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--device {device}: not usable here ({reason:.200}); cpu always is") from None
    if found.type == "cpu":
        keep_freed_memory()
    return found


def keep_freed_memory():
    """Let glibc reuse a step's large blocks: by default it returns them to the system and gets them anew, page by
    page, which took a tenth of a small network's training time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # glibc
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)

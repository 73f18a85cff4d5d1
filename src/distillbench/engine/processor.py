"""The processor of this machine, and the instruction sets with which torch and oneDNN compute on it."""

import os
import platform
import re
import tempfile
from functools import cache

import torch


@cache
def processor():
    """{"model", "torch", "onednn"}: texts for a record, None where the machine does not say.

    The instruction sets are those in effect, which environment variables such as ATEN_CPU_CAPABILITY and
    ONEDNN_MAX_CPU_ISA lower: other ones round differently.
    """
    return {"model": _model(), "torch": torch.backends.cpu.get_cpu_capability(), "onednn": _onednn()}


def _model():
    try:
        name = torch.cpu.get_capabilities()["cpu_name"]
    except (AttributeError, KeyError, RuntimeError):  # an older torch, an unknown processor
        name = platform.processor()
    return name or platform.machine() or None


def _onednn():
    """oneDNN tells it only in the first lines of its log, which go to the process's standard output."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        with tempfile.TemporaryFile() as log:
            stdout = os.dup(1)
            os.dup2(log.fileno(), 1)
            try:
                with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                    torch.zeros(1).to_mkldnn()
            finally:
                os.dup2(stdout, 1)
                os.close(stdout)
            log.seek(0)
            found = re.search(r"^onednn_verbose,.*\bcpu,isa:(.*)$", log.read().decode(), re.MULTILINE)
    except (OSError, RuntimeError, AssertionError, AttributeError):  # no standard output, a oneDNN that is switched off
        return None
    return found and found[1].strip()

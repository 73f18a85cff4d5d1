"""Reading pickles that others wrote: numpy arrays and plain containers, and nothing that a pickle could have called."""

import pickle

import numpy as np

from distillbench.errors import UserError


def _bytes(text, encoding):
    """What Python 3 writes bytes as for Python 2."""
    return text.encode("latin1")


ALLOWED = {("_codecs", "encode"): _bytes, ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
for _core in ("numpy.core", "numpy._core"):  # its name in NumPy 1 and 2
    ALLOWED[f"{_core}.multiarray", "_reconstruct"] = np._core.multiarray._reconstruct
    ALLOWED[f"{_core}.numeric", "_frombuffer"] = np._core.numeric._frombuffer


class _Arrays(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of arrays needs")
        return ALLOWED[module, name]


def read_arrays(file, where):
    """The object in a pickle of numpy arrays and plain containers; texts of Python 2 as latin-1.

    file: binary, open; where: for messages. Raises UserError for a pickle of anything else, before any of it is called.
    """
    try:
        return _Arrays(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises a dozen types
        raise UserError(f"{where}: not a pickle of arrays and lists ({error}); get the file again") from None

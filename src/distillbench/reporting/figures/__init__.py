"""The suite's figures, from `results.Results`, a file each with its caption. `figure_names`: which one has."""

import os
from contextlib import chdir
from pathlib import Path

# On import matplotlib reads the first matplotlibrc that it finds, ./matplotlibrc before all others, and MPLBACKEND,
# which may name a backend that is not installed here (a notebook's).
with chdir(Path(__file__).parent):
    backend = os.environ.pop("MPLBACKEND", None)
    import matplotlib  # noqa: F401

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
from distillbench.reporting.figures import accuracy, curves, differences, gradients, scale
from distillbench.reporting.figures.style import styled

MODULES = {  # by the figure's file; the report page and the paper folder show them in this order
    "accuracy": accuracy,
    "differences": differences,
    "curves": curves,
    "scale": scale,
    "gradients": gradients,
}
FIGURES = {name: styled(module.draw) for name, module in MODULES.items()}
CAPTIONS = {name: module.CAPTION for name, module in MODULES.items()}  # for `evidence.figure_files` to fill in

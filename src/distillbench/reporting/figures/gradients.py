"""Gradients of the distillation loss at the student's logits."""

import matplotlib
import numpy as np

from distillbench.reporting.figures.histories import histories_here, rows_with, vectors
from distillbench.reporting.figures.style import entitle, legend, log_scale, panels
from distillbench.reporting.tables import arrow

CAPTION = (
    "Gradient of the weighted distillation loss with respect to the student's logits during training, per sample:"
    " target is the label, other 1 to 5 are the teacher's largest other classes. Mean over samples and runs of the"
    " signed (top) and absolute (bottom) value. Solid: the row; thin dashes: its control."
)


def draw(results):
    """Two lines of panels a pair, signed and absolute; a column a scaled row (any row, where none is scaled)."""
    table = results.table
    observed, scaled = rows_with(results, "kd_gradient"), rows_with(results, "factor")
    rows = [row for row in observed if row in scaled] or observed
    figure, axes = panels(2 * len(table.pairs), max(1, len(rows)), 2.3, 1.7, sharex=True)
    for line, pair in enumerate(table.pairs):
        for column, row in enumerate(rows):
            signed, absolute = axes[2 * line, column], axes[2 * line + 1, column]
            control = table.entries[row, pair].control
            for name, dashes, width in ((row, "-", 1.3), (control, (0, (2, 1.5)), 0.9)):
                for axis, kind in ((signed, "kd_gradient"), (absolute, "kd_gradient_abs")):
                    _gradient_lines(axis, vectors(results, name, pair, kind) if name else None, dashes, width)
            signed.axhline(0, color="0.2", linewidth=0.7)
            log_scale(absolute)
            title = f"{row}  (dashes: {control})" if control in observed else row
            signed.set_title(title if not line else "", fontsize="small")
            for axis in (signed, absolute):
                axis.tick_params(labelsize="x-small")
        for axis, kind in ((axes[2 * line, 0], "signed"), (axes[2 * line + 1, 0], "absolute")):
            axis.set_ylabel(f"{arrow(pair)}\n{kind}", fontsize="x-small")
    for axis in axes[-1]:
        axis.set_xlabel("epoch", fontsize="small")
    names = ["target", *(f"other {i}" for i in range(1, 6))]
    legend(figure, names, [{"color": colour, "marker": mark} for colour, mark in _rank_looks(6)], columns=6)
    entitle(figure, table, "gradient of the distillation loss at the student's logits" + histories_here(results))
    return figure


def _gradient_lines(axis, frame, dashes, width):
    if frame is None:
        return
    for position, (colour, mark) in enumerate(_rank_looks(frame.shape[1])):
        every = {"marker": mark, "markevery": max(1, len(frame) // 6), "markersize": 2.5}
        axis.plot(frame.index, frame.iloc[:, position], color=colour, linestyle=dashes, linewidth=width, **every)


def _rank_looks(count):
    """(colour, marker) of the target and of the other classes by rank."""
    ranked = matplotlib.colormaps["viridis"](np.linspace(0, 1, 7))[1:-1, :3]
    return list(zip(["black", *ranked], "Do^svX", strict=True))[:count]

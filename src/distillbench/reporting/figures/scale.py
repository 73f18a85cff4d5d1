"""The factors of a transformation that scales gradients, over the teacher's confidence."""

import numpy as np
from matplotlib.ticker import PercentFormatter

from distillbench.reporting.figures.histories import histories_here, mean_vector, rows_with
from distillbench.reporting.figures.style import MARKERS, entitle, legend, look, panels
from distillbench.reporting.tables import arrow

CAPTION = (
    "Factor of a row that scales the gradient, over the teacher's confidence (its largest softened probability), as"
    " both occurred in training: bars are the share of training samples in each of twenty bins, lines the mean factor"
    " of the samples in a bin, over all epochs and runs. Bins with less than one sample in 200 are left out."
)
FEW = 1 / 200  # of the samples seen, a fifth of all: their mean says nothing


def draw(results):
    """A panel a pair: share of samples and mean factor by the teacher's confidence, a line a scaled row."""
    table = results.table
    rows = rows_with(results, "factor")
    figure, axes = panels(1, len(table.pairs), 3.6, 2.8, sharex=True, sharey=True)
    for column, pair in enumerate(table.pairs):
        axis = axes[0, column]
        axis.axhline(1, color="0.2", linewidth=0.8, zorder=1)
        behind = axis.twinx()
        drawn = []
        for number, row in enumerate(rows):
            share, factor = (mean_vector(results, row, pair, name) for name in ("confidence", "factor"))
            if share is None or factor is None:
                continue
            edges = np.linspace(0, 1, len(share) + 1)
            if not any(np.allclose(share, other, atol=1e-2) for other in drawn):  # another temperature
                behind.stairs(share, edges, fill=not drawn, color="0.87" if not drawn else look(number)["color"])
                drawn.append(share)
            there = share > FEW
            centres = (edges[:-1] + edges[1:])[there] / 2
            size = max(1.0, 3.2 - number)  # lines that coincide are all seen
            mark = {"marker": MARKERS[number % len(MARKERS)], "markersize": 2.5 + size, "linewidth": size}
            axis.plot(centres, factor[there] / share[there], zorder=3, **mark, **look(number))
        behind.set_ylim(0, 1)
        behind.grid(visible=False)
        behind.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        behind.tick_params(right=False)
        axis.set_zorder(behind.get_zorder() + 1)
        axis.patch.set_visible(False)
        axis.set_title(arrow(pair), fontsize="medium")
        axis.set_xlabel("teacher's confidence")
        if column == len(table.pairs) - 1:
            behind.set_ylabel("share of samples (bars)")
        else:
            behind.set_yticklabels([])
    axes[0, 0].set_ylabel("mean factor of the gradient (lines)")
    axes[0, 0].set_xlim(0, 1)
    legend(figure, rows, [{"marker": MARKERS[n % len(MARKERS)], **look(n)} for n in range(len(rows))])
    entitle(figure, table, "factor of the gradient where it acted" + histories_here(results))
    return figure

"""Learning curves."""

import pandas as pd

from distillbench.reporting.figures.histories import frames, histories_here
from distillbench.reporting.figures.style import entitle, legend, log_scale, look, panels
from distillbench.reporting.tables import arrow

CAPTION = (
    "Learning curves: error (100 - {phrase}) and cross entropy on the {chosen_on} split after each epoch, mean over"
    " runs, one a seed; bands reach from the lowest to the highest run. Dotted verticals are decays of the learning"
    " rate."
)


def draw(results):
    """A column a pair: test error above, test cross entropy below, both logarithmic; a line a row."""
    table = results.table
    rows, (compared, entropy) = table.students, results.scope.curves
    figure, axes = panels(2, len(table.pairs), 3.4, 2.2, sharex=True, sharey="row")
    for column, pair in enumerate(table.pairs):
        for number, row in enumerate(rows):
            found = frames(results, row, pair)
            if not found:
                continue
            errors = [100 - frame[compared] for frame in found]
            losses = [frame[entropy] for frame in found]
            for axis, curves in zip(axes[:, column], (errors, losses), strict=True):
                values = pd.concat(curves, axis=1)
                shown = look(number)
                axis.plot(values.index, values.mean(axis=1), linewidth=1.4, **shown)
                axis.fill_between(
                    values.index, values.min(axis=1), values.max(axis=1), color=shown["color"], alpha=0.12, linewidth=0
                )
            for axis in axes[:, column]:
                _decays(axis, found[0]["lr"])
        axes[0, column].set_title(arrow(pair), fontsize="medium")
        axes[1, column].set_xlabel("epoch")
    axes[0, 0].set_ylabel(f"{results.scope.chosen_on} error (%)")
    axes[1, 0].set_ylabel(f"{results.scope.chosen_on} cross entropy (nats)")
    for axis in axes[:, 0]:
        log_scale(axis)
    legend(figure, rows, [look(number) for number in range(len(rows))])
    entitle(figure, table, "learning curves, mean and range over runs" + histories_here(results))
    return figure


def _decays(axis, rates):
    for epoch in rates.index[1:][rates.diff().iloc[1:] < 0]:
        axis.axvline(epoch - 0.5, color="0.8", linewidth=0.8, linestyle=":", zorder=0)

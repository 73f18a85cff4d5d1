"""The intervals of differences to the control."""

from distillbench.reporting.figures.style import COLOURS, MARKERS, entitle, legend, panels
from distillbench.reporting.tables import arrow

CAPTION = (
    "Difference in {phrase} after the last epoch between each row and its control, in percentage points,"
    " paired by seed, with 95 % t-intervals; black diamonds: over all pairs, averaged within a seed first. An"
    " interval that contains zero shows no difference. Intervals are not corrected for the number of rows."
    " {coverage}"
)


def draw(results):
    """A line a row with a control: the interval of each pair, below them the one over all pairs."""
    table = results.table
    rows = [row for row in table.rows if table.entries[row, table.pairs[0]].control]
    figure, axes = panels(1, 1, 5.2, 0.34 + 0.16 * len(rows) * (len(table.pairs) + 2))
    axis, step = axes[0][0], 1 / (len(table.pairs) + 2)
    looks = [{"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]} for i in range(len(table.pairs))]
    looks.append({"color": "black", "marker": "D"})
    axis.axvline(0, color="0.2", linewidth=1)
    for y, row in enumerate(rows):
        for i, pair in enumerate(table.pairs):
            _interval(axis, table.entries[row, pair].difference, y + (i - len(table.pairs) / 2) * step, looks[i])
        _interval(axis, table.pooled.get(row), y + len(table.pairs) / 2 * step, looks[-1])
        if y:
            axis.axhline(y - 0.5, color="0.85", linewidth=0.6)
    names = [f"{row} − {table.entries[row, table.pairs[0]].control}" for row in rows]
    axis.set_yticks(range(len(rows)), names)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="x")
    axis.grid(visible=False, axis="y")
    axis.set_xlabel(f"difference in {table.scope.compared.phrase} (percentage points)")
    names = [*map(arrow, table.pairs), *(["all pairs"] if table.pooled else [])]
    legend(figure, names, [{"linestyle": "none", **look} for look in looks], columns=4)
    entitle(figure, table, "difference to the control, 95 % t-intervals")
    return figure


def _interval(axis, interval, y, look):
    if interval is None or not interval.n:
        return
    if interval.n > 1:
        axis.plot([interval.low, interval.high], [y, y], color=look["color"], linewidth=1.4)
    axis.plot(interval.mean, y, markersize=5, linestyle="none", **look)

"""Each run's accuracy, the means with their intervals, the teachers."""

from distillbench.reporting.figures.style import COLOURS, GREY, entitle, panels
from distillbench.reporting.statistics import t_interval
from distillbench.reporting.tables import arrow

CAPTION = (
    "{title} on the {split} split after the last epoch, by method, a panel a teacher-student pair. Dots are"
    " runs, one a seed; diamonds their mean with its 95 % t-interval; the dashed line is the mean of the teachers."
    " {coverage}"
)


def draw(results):
    """A panel a pair: each run's last epoch, the mean with its 95 % t-interval, the teacher as a line."""
    table = results.table
    rows = table.students
    width = max(2.6, 0.5 * len(rows) + 0.9)
    figure, axes = panels(1, len(table.pairs), width, 3.0, sharey=True)
    for axis, pair in zip(axes[0], table.pairs, strict=True):
        _panel(axis, table, rows, pair)
    axes[0][0].set_ylabel(f"{table.scope.compared.phrase} after the last epoch (%)")
    entitle(figure, table, "runs, mean and 95 % t-interval")
    return figure


def _panel(axis, table, rows, pair):
    teacher = [value for row in table.teachers for value in table.entries[row, pair].last.values()]
    if teacher:
        level = sum(teacher) / len(teacher)
        axis.axhline(level, color=GREY, linestyle="--", linewidth=1, zorder=1)
        name = pair.partition("-")[0]
        axis.annotate(
            f"teacher {name}", (0.01, level), xycoords=("axes fraction", "data"), xytext=(0, 2),
            textcoords="offset points", fontsize="x-small", color=GREY,
        )  # fmt: skip
    for x, row in enumerate(rows):
        values = list(table.entries[row, pair].last.values())
        if not values:
            axis.annotate("no run", (x, 0.5), xycoords=("data", "axes fraction"), rotation=90, ha="center", color=GREY)
            continue
        colour = COLOURS[x % len(COLOURS)]
        mean = t_interval(values)
        if mean.n > 1:
            axis.errorbar(x, mean.mean, yerr=mean.high - mean.mean, color=colour, capsize=4, linewidth=1.6, zorder=2)
        axis.plot(x, mean.mean, marker="D", color=colour, markersize=6, zorder=3)
        offsets = [x + 0.16 + 0.06 * i for i in range(len(values))]
        dots = {"markersize": 3.5, "markeredgecolor": "white", "markeredgewidth": 0.5}
        axis.plot(offsets, values, "o", color=colour, zorder=4, **dots)
    axis.set_xticks(range(len(rows)), rows, rotation=35, ha="right")
    axis.set_xlim(-0.5, len(rows) - 0.5)
    axis.set_title(arrow(pair), fontsize="medium")

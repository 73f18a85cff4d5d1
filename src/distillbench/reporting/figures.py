"""The suite's figure: accuracy by method, every run shown, with intervals."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import seaborn as sns

from distillbench.reporting.statistics import t_interval

PALETTE = "colorblind"

CAPTIONS = {  # by the figure's file; the report page and the paper folder show them in this order
    "accuracy": (
        "Top-1 accuracy on the test split after the last epoch, by method, a panel a teacher-student pair. Dots are"
        " runs, one a seed; diamonds their mean with its 95 % t-interval; the dashed line is the teacher."
    ),
}


def accuracy_figure(table):
    """A panel a pair: each run's last-epoch top-1, the mean with its 95 % t-interval, the teacher as a line."""
    sns.set_theme(style="whitegrid", context="paper", palette=PALETTE, rc={"axes.grid.axis": "y", "pdf.fonttype": 42})
    rows = [row for row in table.rows if row != "Teacher"]
    width = max(2.6, 0.62 * len(rows) + 0.9)
    figure, axes = plt.subplots(
        1,
        len(table.pairs),
        figsize=(width * len(table.pairs), 3.4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, pair in zip(axes[0], table.pairs, strict=True):
        _panel(axis, table, rows, pair)
    axes[0][0].set_ylabel("top-1 accuracy after the last epoch (%)")
    title = f"{table.suite}: runs, mean and 95 % t-interval"
    figure.suptitle(f"{title}  ({table.banner})" if table.banner else title, fontsize="medium")
    return figure


def _panel(axis, table, rows, pair):
    colours = sns.color_palette(PALETTE)
    teacher = list(table.entries["Teacher", pair].last.values())
    if teacher:
        level = sum(teacher) / len(teacher)
        axis.axhline(level, color="0.35", linestyle="--", linewidth=1, zorder=1)
        name = pair.partition("-")[0]
        axis.annotate(
            f"teacher {name}", (0.01, level), xycoords=("axes fraction", "data"), xytext=(0, 2),
            textcoords="offset points", fontsize="x-small", color="0.35",
        )  # fmt: skip
    for x, row in enumerate(rows):
        values = list(table.entries[row, pair].last.values())
        if not values:
            axis.annotate("no run", (x, 0.5), xycoords=("data", "axes fraction"), rotation=90, ha="center", color="0.5")
            continue
        colour = colours[x % len(colours)]
        mean = t_interval(values)
        if mean.n > 1:
            axis.errorbar(x, mean.mean, yerr=mean.high - mean.mean, color=colour, capsize=4, linewidth=1.6, zorder=2)
        axis.plot(x, mean.mean, marker="D", color=colour, markersize=6, zorder=3)
        offsets = [x + 0.16 + 0.06 * i for i in range(len(values))]
        axis.plot(
            offsets,
            values,
            "o",
            color=colour,
            markersize=3.5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            zorder=4,
        )
    axis.set_xticks(range(len(rows)), rows, rotation=30, ha="right")
    axis.set_xlim(-0.5, len(rows) - 0.5)
    axis.set_title(pair.replace("-", " → "), fontsize="medium")


def save(figure, path):
    """Write a figure as PDF or PNG by the path's ending; the bytes depend on the figure alone."""
    metadata = {"CreationDate": None} if str(path).endswith(".pdf") else {"Software": None}
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200, metadata=metadata)
    plt.close(figure)

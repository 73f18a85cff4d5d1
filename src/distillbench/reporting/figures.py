"""The suite's figures, from `results.Results`. Which of `FIGURES` a suite has: `index.figure_names`.

They depend on results alone: not on a person's matplotlibrc, styles, environment or fonts, nor on what else the
process drew. So pyplot, which looks for all of these, is not used.
"""

import io
import os
import warnings
from contextlib import chdir
from functools import wraps
from pathlib import Path

import numpy as np
import pandas as pd

from distillbench.files import write_atomically
from distillbench.reporting.statistics import t_interval

STYLE = Path(__file__).with_name("matplotlibrc")

# On import matplotlib reads the first matplotlibrc that it finds, ./matplotlibrc before all others, and MPLBACKEND,
# which may name a backend that is not installed here (a notebook's).
with chdir(STYLE.parent):
    backend = os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

# Every setting, matplotlib's own where the file has none. A figure without pyplot has no use for a backend.
SETTINGS = {name: value for name, value in matplotlib.rc_params_from_file(STYLE).items() if name != "backend"}
COLOURS = SETTINGS["axes.prop_cycle"].by_key()["color"]
MARKERS = "os^vP*Xd"
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 2)))
GREY = "0.35"

CAPTIONS = {  # by the figure's file; the report page and the paper folder show them in this order
    "accuracy": (
        "Top-1 accuracy on the test split after the last epoch, by method, a panel a teacher-student pair. Dots are"
        " runs, one a seed; diamonds their mean with its 95 % t-interval; the dashed line is the mean of the teachers."
    ),
    "differences": (
        "Difference in top-1 accuracy after the last epoch between each row and its control, in percentage points,"
        " paired by seed, with 95 % t-intervals; black diamonds: over all pairs, averaged within a seed first. An"
        " interval that contains zero shows no difference. Intervals are not corrected for the number of rows."
    ),
    "curves": (
        "Learning curves: error (100 - top-1 accuracy) and cross entropy on the test split after each epoch, mean over"
        " runs, one a seed; bands reach from the lowest to the highest run. Dotted verticals are decays of the learning"
        " rate."
    ),
    "scale": (
        "GKD's factor over the teacher's confidence (its largest softened probability) as both occurred in training:"
        " bars are the share of training samples in each of twenty bins, lines the mean factor of the samples in a"
        " bin, over all epochs and runs. Bins with less than one sample in a thousand are left out."
    ),
    "gradients": (
        "Gradient of the weighted distillation loss with respect to the student's logits during training, per sample:"
        " target is the label, other 1 to 5 are the teacher's largest other classes. Mean over samples and runs of the"
        " signed (top) and absolute (bottom) value. Solid: the row; thin dashes: its control."
    ),
}


WITH_INTERVALS = ("accuracy", "differences")  # their captions end in the table's coverage


def panels(rows, columns, width, height, **options):
    """(figure, axes [rows, columns]) with panels of the given size in inches."""
    figure = Figure(figsize=(width * columns + 0.4, height * rows + 0.6), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def entitle(figure, table, title):
    text = f"{table.suite}: {title}"
    figure.suptitle(f"{text}  ({table.banner})" if table.banner else text, fontsize="medium")


def histories_here(results):
    """For a title: how many runs' histories the figure is drawn from, where some are not here."""
    evaluated = set(results.metrics["run"]) & set(results.index["run"])
    here = evaluated & results.histories.keys()
    return "" if here == evaluated else f" (history.csv of {len(here)} of {len(evaluated)} runs)"


def arrow(pair):
    return pair.replace("-", " → ")


def look(number):
    """Colour and dashes of the number-th line: two lines differ in both."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


def legend(figure, names, looks, columns=5):
    """Below all panels: the names, each as its line looks."""
    handles = [Line2D([], [], markersize=4, **look) for _, look in zip(names, looks, strict=False)]
    where = {"loc": "outside lower center", "ncols": min(columns, max(1, len(handles)))}
    figure.legend(handles, names, fontsize="small", handlelength=3.5, **where)


def accuracy_figure(results):
    """A panel a pair: each run's last-epoch top-1, the mean with its 95 % t-interval, the teacher as a line."""
    table = results.table
    rows = [row for row in table.rows if row != "Teacher"]
    width = max(2.6, 0.5 * len(rows) + 0.9)
    figure, axes = panels(1, len(table.pairs), width, 3.0, sharey=True)
    for axis, pair in zip(axes[0], table.pairs, strict=True):
        _accuracy_panel(axis, table, rows, pair)
    axes[0][0].set_ylabel("top-1 accuracy after the last epoch (%)")
    entitle(figure, table, "runs, mean and 95 % t-interval")
    return figure


def _accuracy_panel(axis, table, rows, pair):
    teacher = list(table.entries["Teacher", pair].last.values())
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


def differences_figure(results):
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
    axis.set_xlabel("difference in top-1 accuracy (percentage points)")
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


def curves_figure(results):
    """A column a pair: test error above, test cross entropy below, both logarithmic; a line a row."""
    table = results.table
    rows = [row for row in table.rows if row != "Teacher"]
    figure, axes = panels(2, len(table.pairs), 3.4, 2.2, sharex=True, sharey="row")
    for column, pair in enumerate(table.pairs):
        for number, row in enumerate(rows):
            frames = _frames(results, row, pair)
            if not frames:
                continue
            errors, losses = [100 - frame["test_top1"] for frame in frames], [frame["test_loss_ce"] for frame in frames]
            for axis, curves in zip(axes[:, column], (errors, losses), strict=True):
                values = pd.concat(curves, axis=1)
                shown = look(number)
                axis.plot(values.index, values.mean(axis=1), linewidth=1.4, **shown)
                axis.fill_between(
                    values.index, values.min(axis=1), values.max(axis=1), color=shown["color"], alpha=0.12, linewidth=0
                )
            for axis in axes[:, column]:
                _decays(axis, frames[0]["lr"])
        axes[0, column].set_title(arrow(pair), fontsize="medium")
        axes[1, column].set_xlabel("epoch")
    axes[0, 0].set_ylabel("test error (%)")
    axes[1, 0].set_ylabel("test cross entropy (nats)")
    for axis in axes[:, 0]:
        _log_scale(axis)
    legend(figure, rows, [look(number) for number in range(len(rows))])
    entitle(figure, table, "learning curves, mean and range over runs" + histories_here(results))
    return figure


def _log_scale(axis):
    """A logarithmic axis with plain numbers on it, also where it spans less than a decade."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _decays(axis, rates):
    for epoch in rates.index[1:][rates.diff().iloc[1:] < 0]:
        axis.axvline(epoch - 0.5, color="0.8", linewidth=0.8, linestyle=":", zorder=0)


def scale_figure(results):
    """A panel a pair: share of samples and mean factor by the teacher's confidence, a line a scaled row."""
    table = results.table
    rows = [row for row in table.rows if any(_vector(results, row, pair, "factor") is not None for pair in table.pairs)]
    figure, axes = panels(1, len(table.pairs), 3.6, 2.8, sharex=True, sharey=True)
    for column, pair in enumerate(table.pairs):
        axis = axes[0, column]
        axis.axhline(1, color="0.2", linewidth=0.8, zorder=1)
        behind = axis.twinx()
        drawn = []
        for number, row in enumerate(rows):
            share, factor = (_vector(results, row, pair, name) for name in ("confidence", "factor"))
            if share is None or factor is None:
                continue
            edges = np.linspace(0, 1, len(share) + 1)
            if not any(np.allclose(share, other, atol=1e-2) for other in drawn):  # another temperature
                behind.stairs(share, edges, fill=not drawn, color="0.87" if not drawn else look(number)["color"])
                drawn.append(share)
            there = share > 1e-3  # the mean of a few samples says nothing
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
    entitle(figure, table, "GKD's factor where it acted" + histories_here(results))
    return figure


def gradients_figure(results):
    """Two lines of panels a pair, signed and absolute; a column a scaled row (any row, where none is scaled)."""
    table = results.table
    observed = [row for row in table.rows if any(_gradient(results, row, pair) is not None for pair in table.pairs)]
    scaled = [row for row in observed if any(_vector(results, row, p, "factor") is not None for p in table.pairs)]
    rows = scaled or observed
    figure, axes = panels(2 * len(table.pairs), max(1, len(rows)), 2.3, 1.7, sharex=True)
    for line, pair in enumerate(table.pairs):
        for column, row in enumerate(rows):
            signed, absolute = axes[2 * line, column], axes[2 * line + 1, column]
            control = table.entries[row, pair].control
            for name, dashes, width in ((row, "-", 1.3), (control, (0, (2, 1.5)), 0.9)):
                for axis, kind in ((signed, "kd_gradient"), (absolute, "kd_gradient_abs")):
                    _gradient_lines(axis, _gradient(results, name, pair, kind) if name else None, dashes, width)
            signed.axhline(0, color="0.2", linewidth=0.7)
            _log_scale(absolute)
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


def _frames(results, row, pair):
    """The histories of a cell's runs, one a seed."""
    cells = results.index[(results.index["row"] == row) & (results.index["pair"] == pair)]
    return [results.histories[run] for run in cells["run"] if run in results.histories]


def _columns(frame, name):
    return [f"train_{name}_{i}" for i in range(sum(c.removeprefix(f"train_{name}_").isdigit() for c in frame))]


def _gradient(results, row, pair, name="kd_gradient"):
    """Mean over a cell's runs, a line an epoch, a column a class; None where none observed it."""
    frames = [frame[_columns(frame, name)] for frame in _frames(results, row, pair) if _columns(frame, name)]
    return sum(frames) / len(frames) if frames else None


def _vector(results, row, pair, name):
    """Mean over a cell's runs and epochs, as an array; None where none observed it."""
    frame = _gradient(results, row, pair, name)
    return None if frame is None else frame.mean(axis=0).to_numpy()


def _styled(draw):
    @wraps(draw)
    def styled(*arguments):
        with matplotlib.rc_context(SETTINGS):
            return draw(*arguments)

    return styled


FIGURES = {
    "accuracy": _styled(accuracy_figure),
    "differences": _styled(differences_figure),
    "curves": _styled(curves_figure),
    "scale": _styled(scale_figure),
    "gradients": _styled(gradients_figure),
}


@_styled
def save(figure, path):
    """Write a figure as PDF or PNG by the path's ending; the bytes depend on the figure alone.

    Returns the set of the characters that no font here has: each is a box in the figure.
    """
    unknown, content = use_fonts(figure), io.BytesIO()
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(content, format=path.suffix[1:], dpi=200, metadata=metadata)
    write_atomically(path, content.getvalue())
    return unknown


def use_fonts(figure):
    """Let texts with characters that the style's font lacks use other fonts of this system, where one has them.

    Any other text keeps the style's font, so that only figures with such texts depend on the system. Returns the
    set of the characters that no font has.
    """
    style = SETTINGS["font.family"]
    own = font_manager.findfont(font_manager.FontProperties(family=style))
    texts = {text: _unknown(text.get_text(), own) for text in figure.findobj(Text)}
    unknown, families = set().union(*texts.values()), []
    known = {name: unknown - _unknown(unknown, path) for name, path in _families().items()} if unknown else {}
    while unknown and (name := max(known, key=lambda name: len(known[name] & unknown))) and known[name] & unknown:
        families.append(name)
        unknown -= known[name]
    for text, lacks in texts.items():
        if lacks:
            text.set_fontfamily([*style, *families])
    return unknown


def _families():
    """{font family of this system: a file of it}, in a fixed order: of two that serve as well the first is used."""
    fonts = sorted((font.name, font.fname) for font in font_manager.fontManager.ttflist)
    return {name: path for name, path in fonts if not name.startswith("Last Resort")}  # that has a box for everything


def _unknown(characters, path):
    """Those characters that a font file lacks."""
    try:
        known = font_manager.get_font(path).get_charmap()
    except (OSError, RuntimeError):  # removed since, or not a font that matplotlib reads
        known = ()
    return {character for character in characters if ord(character) not in known and not character.isspace()}

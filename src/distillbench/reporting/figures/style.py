"""What all figures share: settings, panels, looks, and how they are saved.

They depend on results alone: not on a person's matplotlibrc, styles, environment or fonts, nor on what else the
process drew. So pyplot, which looks for all of these, is not used.
"""

import io
import warnings
from functools import wraps
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from distillbench.files import write_atomically
from distillbench.reporting.figures.fonts import use_fonts

STYLE = Path(__file__).with_name("matplotlibrc")

# Every setting, matplotlib's own where the file has none. A figure without pyplot has no use for a backend.
SETTINGS = {name: value for name, value in matplotlib.rc_params_from_file(STYLE).items() if name != "backend"}
COLOURS = SETTINGS["axes.prop_cycle"].by_key()["color"]
MARKERS = "os^vP*Xd"
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (9, 2)))
GREY = "0.35"


def panels(rows, columns, width, height, **options):
    """(figure, axes [rows, columns]) with panels of the given size in inches."""
    figure = Figure(figsize=(width * columns + 0.4, height * rows + 0.6), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def entitle(figure, table, title):
    text = f"{table.suite}: {title}"
    figure.suptitle(f"{text}  ({table.banner})" if table.banner else text, fontsize="medium")


def look(number):
    """Colour and dashes of the number-th line: two lines differ in both; where a colour comes again, in plain sight."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


def legend(figure, names, looks, columns=5):
    """Below all panels: the names, each as its line looks."""
    handles = [Line2D([], [], markersize=4, **look) for _, look in zip(names, looks, strict=False)]
    where = {"loc": "outside lower center", "ncols": min(columns, max(1, len(handles)))}
    figure.legend(handles, names, fontsize="small", handlelength=3.5, **where)


def log_scale(axis):
    """A logarithmic axis with plain numbers on it, also where it spans less than a decade."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def styled(draw):
    @wraps(draw)
    def styled(*arguments):
        with matplotlib.rc_context(SETTINGS):
            return draw(*arguments)

    return styled


@styled
def save(figure, path):
    """Write a figure as PDF or PNG by the path's ending; the bytes depend on the figure alone.

    Returns the set of the characters that no font here has: each is a box in the figure.
    """
    unknown, content = use_fonts(figure, SETTINGS["font.family"]), io.BytesIO()
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(content, format=path.suffix[1:], dpi=200, metadata=metadata)
    write_atomically(path, content.getvalue())
    return unknown

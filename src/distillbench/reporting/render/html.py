"""HTML: a table to stand in a page, with legend and notes below; differences that exclude zero are marked."""

from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from distillbench.reporting.render.text import footnotes, lone, parts, title
from distillbench.reporting.sheet import Difference, Text
from distillbench.reporting.tables import arrow

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(sheet):
    sheet = sheet.shown
    header = [(arrow(group), columns) if len(columns) > 1 else ("", columns) for group, columns in sheet.groups]
    starts = [bool(group) and first for group, columns in header for first in (True, *(len(columns) - 1) * (False,))]
    bodies = [
        (role in ("teacher", "student"), [_cells(sheet, line) for line in lines])
        for role, lines in groupby(sheet.lines, key=lambda line: line.role)
    ]
    marked = any(cell["sign"] for _, lines in bodies for line in lines for cell in line)
    return Markup(
        ENVIRONMENT.get_template("table.html").render(
            sheet=sheet,
            header=[
                (group, [(lone(c) if not group else title(c), c.align) for c in columns]) for group, columns in header
            ],
            starts=starts,
            bodies=bodies,
            marked=marked,
            notes=footnotes(sheet),
        )
    )


def _cells(sheet, line):
    cells = []
    for column, cell in zip(sheet.columns, line.cells, strict=True):
        number = column.align == "right" and not (cell and isinstance(cell.value, Text))
        cells.append({"parts": parts(sheet, column, cell), "sign": _sign(cell), "number": number})
    return cells


def _sign(cell):
    """The mark of a difference whose interval excludes zero, by its direction; "" for any other cell."""
    if not cell or not isinstance(cell.value, Difference) or not cell.value.interval.excludes_zero:
        return ""
    return "▲" if cell.value.interval.low > 0 else "▼"

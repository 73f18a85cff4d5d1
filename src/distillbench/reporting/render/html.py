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
    bodies = [
        (role in ("teacher", "student"), [_cells(sheet, line) for line in lines])
        for role, lines in groupby(sheet.lines, key=lambda line: line.role)
    ]
    marked = any(cell["sign"] for _, lines in bodies for line in lines for cell in line)
    starts = [len(columns) > 1 and i == 0 for _, columns in sheet.groups for i in range(len(columns))]
    content = {"sheet": sheet, "header": _header(sheet), "starts": starts, "bodies": bodies, "marked": marked}
    return Markup(ENVIRONMENT.get_template("table.html").render(content, notes=footnotes(sheet)))


def _header(sheet):
    """[(group, [(heading, align), ...])], the group "" for a lone column."""
    return [
        (arrow(group), [(title(c), c.align) for c in columns])
        if len(columns) > 1
        else ("", [(lone(columns[0]), columns[0].align)])
        for group, columns in sheet.groups
    ]


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

"""Cells, headings and notes of a sheet as people read them, before a format adds its markup."""

import re
from math import isnan

from distillbench.reporting.sheet import Count, Difference, Number, Outcome, Spread, Text


def text(sheet, column, cell):
    return " ".join(parts(sheet, column, cell))


def parts(sheet, column, cell):
    """The texts of a cell between which a line may break, at least one; with the number of its note."""
    found = _parts(column, cell.value) if cell else [""]
    return [*found, f"[{sheet.footnotes.index(cell.note) + 1}]"] if cell and cell.note else found


def _parts(column, value):
    match value:
        case Text(words):
            return re.split(r"(?<=,) ", words)
        case Count(number):
            return [str(number)]
        case Number(number):
            return [_number(number, column.form)]
        case Spread():
            return [_spread(column, value)]
        case Outcome(_, 0):
            return ["-"]
        case Outcome(0, attempted):
            return [f"failed (0/{attempted})"]
        case Outcome(finished, attempted, _, spread):
            return [f"{_spread(column, spread)} ({finished}/{attempted})"]
        case Difference(_, interval) if not interval.n:
            return [""]
        case Difference(control, (n, mean, low, high)):
            middle, low, high = (format(number, f"+{column.form}") for number in (mean, low, high))
            return [middle, *([f"[{low}, {high}]"] if n > 1 else []), f"vs {control}"]


def _number(number, form):
    return "-" if isnan(number) else format(number, form)


def _spread(column, spread):
    known = column.deviation and not isnan(spread.sd)
    return _number(spread.mean, column.form) + (f" ± {spread.sd:{column.form}}" if known else "")


def title(column):
    """A column's heading with its unit."""
    return f"{column.heading} ({column.unit})" if column.unit else column.heading


def lone(column):
    """The heading of a column that has its group for itself."""
    return f"{column.short}, {column.group}" if column.group else title(column)


def footnote(sheet, note):
    return f"[{sheet.footnotes.index(note) + 1}] {note}"


def footnotes(sheet):
    return [footnote(sheet, note) for note in sheet.footnotes]

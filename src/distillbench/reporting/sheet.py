"""A table as data: what its cells hold, in which columns, and what stands below. `sheets` builds, `render` writes."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from distillbench.reporting.statistics import Interval

# Values. Each knows its numbers in full, NaN where there is none; how they are written is the renderers' matter.


class Text(NamedTuple):
    text: str


class Count(NamedTuple):
    number: int


class Number(NamedTuple):
    value: float


class Spread(NamedTuple):
    """Mean and standard deviation of several runs."""

    mean: float
    sd: float


class Outcome(NamedTuple):
    """What became of a cell's runs: how many finished, were tried, were planned, and the spread of those that did."""

    finished: int
    attempted: int
    planned: int
    spread: Spread


class Difference(NamedTuple):
    """Of a row to its control."""

    control: str
    interval: Interval


class Column(NamedTuple):
    """A column; its key is unique in its group."""

    key: str
    heading: str = ""
    group: str = ""
    unit: str = ""
    short: str = ""  # the heading where there is little space and the group's name stands above
    align: str = "left"
    form: str = ".2f"  # of numbers, for people
    deviation: bool = True  # whether people are shown it: not of what is the same in every run
    fields: tuple = ()  # what files call the fields of its values; () for the key alone
    shown: bool = True  # to people: or it is for files alone


class Cell(NamedTuple):
    value: Text | Count | Number | Spread | Outcome | Difference
    note: str = ""  # for below the table


class Line(NamedTuple):
    """`cells` has one of each column, None where there is nothing; lines of one role stand together."""

    cells: tuple
    role: str = ""

    @property
    def name(self):
        return self.cells[0].value.text


@dataclass(frozen=True)
class Sheet:
    """A table. `grouping`: what files call the groups of its columns; `banner`: what has to be known before all."""

    name: str
    suite: str
    title: str
    columns: tuple
    lines: tuple
    legend: str = ""
    banner: str = ""
    grouping: str = ""

    @cached_property
    def shown(self):
        """The sheet as people see it."""
        places = [i for i, column in enumerate(self.columns) if column.shown]
        lines = (line._replace(cells=tuple(line.cells[i] for i in places)) for line in self.lines)
        return replace(self, columns=tuple(self.columns[i] for i in places), lines=tuple(lines))

    @property
    def groups(self):
        """[(group, its columns)] in their order; a column without a group is alone, under ""."""
        alone = enumerate(self.columns)
        parts = groupby(alone, key=lambda item: item[1].group or item[0])
        return [(columns[0].group, columns) for columns in ([column for _, column in part] for _, part in parts)]

    @cached_property
    def footnotes(self):
        """The notes of all cells; the number of a note is its place here, from 1."""
        return [cell.note for line in self.lines for cell in line.cells if cell and cell.note]

    def cell(self, row, key, group=""):
        """(column, cell) of the first line of that name. Raises KeyError if there is none."""
        for line in self.lines:
            for column, cell in zip(self.columns, line.cells, strict=True):
                if (line.name, column.key, column.group) == (row, key, group):
                    return column, cell
        raise KeyError((row, key, group))

    def records(self):
        """Long form, {key: (column, cell)}: one a line, or where columns have groups one a line and group.

        Groups of like columns come together, line by line; a group of which a line has no cell is left out.
        """
        named = [(group, columns) for group, columns in self.groups if group] or [("", [])]
        for _, alike in groupby(named, key=lambda item: [column.key for column in item[1]]):
            alike = [group for group, _ in alike]
            for line, group in ((line, group) for line in self.lines for group in alike):
                cells = list(zip(self.columns, line.cells, strict=True))
                record = {column.key: (column, cell) for column, cell in cells if not column.group}
                if group:
                    record[self.grouping] = Column(self.grouping), Cell(Text(group))
                found = {column.key: (column, cell) for column, cell in cells if group and column.group == group}
                if any(cell for _, cell in found.values()) or not group:
                    yield record | found

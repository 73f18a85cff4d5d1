"""The main table, a line a row, groups of columns by pair; and the summary of it that a terminal shows."""

import textwrap
from dataclasses import replace

from distillbench.reporting.sheet import Cell, Column, Difference, Line, Number, Outcome, Sheet, Spread, Text
from distillbench.reporting.statistics import Interval, mean, standard_deviation
from distillbench.reporting.tables import POOLED

WIDTH = 100  # of the summary's text


def main_sheet(table):
    """The `sheet.Sheet` of a `tables.Table`."""
    columns = [Column("row", "method"), *(column for pair in table.pairs for column in _columns(pair))]
    if len(table.pairs) > 1:
        columns += [Column("metric", group=POOLED, shown=False), _difference_column(POOLED)]
    lines = (_line(table, row) for row in table.rows)
    legend = (
        f"{_numbers_of(table.scope)}: mean ± standard deviation over runs (finished/attempted runs), one a seed, after"
        f" the last epoch; best: {_best(table.scope)}. Differences are those of the last epoch, paired by seed, with"
        f" 95 % t-intervals; over all pairs they are averaged within a seed first. {table.coverage}"
    )
    title = f"Suite {table.suite}"
    return Sheet("main", table.suite, title, tuple(columns), tuple(lines), legend, table.banner, grouping="pair")


def summary_sheet(table):
    """Of the main sheet the accuracies, and the difference over all pairs."""
    main, pooled = main_sheet(table).shown, len(table.pairs) > 1
    last = "difference, all pairs" if pooled else "difference to control"
    headings = {0: "method", len(main.columns) - 1: last}
    headings |= {i: column.group for i, column in enumerate(main.columns) if column.key == "last"}
    columns = (main.columns[i]._replace(group="", heading=headings[i]) for i in sorted(headings))
    lines = (line._replace(cells=tuple(line.cells[i] for i in sorted(headings))) for line in main.lines)
    averaged = ", averaged over the pairs within a seed," if pooled else ""
    legend = (
        f"{_numbers_of(table.scope)} after the last epoch: mean ± standard deviation over runs"
        f" (finished/attempted runs), one a seed. Differences are paired by seed{averaged} with 95 % t-intervals."
        f" {table.coverage}"
    )
    return replace(
        main, name="summary", columns=tuple(columns), lines=tuple(lines), legend=textwrap.fill(legend, WIDTH)
    )


def _numbers_of(scope):
    terms = f" ({scope.terms})" if scope.terms else ""
    return f"{scope.title} in percent on the {scope.split} split{terms}"


def _best(scope):
    if scope.chosen_on == scope.split:
        return f"mean of each run's best {scope.split} epoch, which is optimistic"
    return "the same of the epoch that is each run's best on the images held out"


def _columns(pair):
    return [
        Column("metric", group=pair, shown=False),
        Column("last", "last epoch", pair, short="last", fields=("n", "attempted", "planned", "last_mean", "last_sd")),
        Column("best", "best", pair, align="right", fields=("best_mean",)),
        Column("best_sd", group=pair, shown=False),
        _difference_column(pair),
        Column("failures", group=pair, shown=False),
    ]


def _difference_column(group):
    fields = ("control", *(f"difference_{name}" for name in Interval._fields))
    return Column("difference", "difference to control", group, short="difference", fields=fields)


def _line(table, row):
    cells, metric = [Cell(Text(row))], Cell(Text(table.scope.headline))
    for pair in table.pairs:
        cells += [metric, *_cells(table.entries[row, pair])]
    if len(table.pairs) > 1:
        control, pooled = table.entries[row, table.pairs[0]].control, table.pooled.get(row)
        cells += [metric, Cell(Difference(control, pooled))] if pooled else [None, None]
    return Line(tuple(cells), table.roles[row])


def _cells(entry):
    last, best = list(entry.last.values()), list(entry.best.values())
    failures = "; ".join(entry.failures)
    outcome = Outcome(len(last), entry.attempted, entry.planned, Spread(mean(last), standard_deviation(last)))
    return [
        Cell(outcome, f"failed: {entry.row}, {entry.pair}, {failures}" if failures else ""),
        Cell(Number(mean(best))),
        Cell(Number(standard_deviation(best))),
        Cell(Difference(entry.control, entry.difference)) if entry.difference else None,
        Cell(Text(failures)),
    ]

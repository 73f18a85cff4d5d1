"""The suite's second table: calibration, likeness to the teacher and cost, a line a row and pair."""

from distillbench.reporting.collect import COSTS, shown
from distillbench.reporting.sheet import Cell, Column, Count, Line, Sheet, Spread, Text
from distillbench.reporting.statistics import standard_deviation
from distillbench.reporting.tables import ROLES


def _column(key, heading, form, unit="", deviation=True):
    return Column(key, heading, unit=unit, align="right", form=form, deviation=deviation, fields=(key, f"{key}_sd"))


COST_COLUMNS = (
    _column("parameters", "parameters", ",.0f", deviation=False),
    _column("multiply_adds", "multiply-adds", ",.0f", deviation=False),
    _column("seconds", "training", ".1f", "s"),
    _column("images_per_second", "images/s", ".0f"),
)
COST_LEGEND = (
    "Parameters and multiply-adds (of the convolutions and linear layers, for one image) are the network's; training"
    " time and training images per second include the {split} after each epoch, and are comparable only where machines"
    " were the same and equally busy."
)


def columns(scope):
    """The columns of metrics and costs, by their names."""
    metrics = (_column(name, m.heading, m.form, m.unit) for name, m in scope.metrics.items())
    return *metrics, *COST_COLUMNS


def _legend(scope):
    metrics = "; ".join(metric.legend for metric in scope.metrics.values() if metric.legend)
    terms = f" ({scope.terms})" if scope.terms else ""
    what = f"{scope.split.capitalize()} split{terms}, after the last epoch, mean ± standard deviation over runs"
    return f"{what}, one a seed. {metrics}. {COST_LEGEND.format(split=scope.chosen_on)}"


def details_sheet(table, index, metrics, costs):
    """The `sheet.Sheet` of the suite of a `tables.Table`; index, metrics, costs: as in its CSV files."""
    last = shown(metrics, table.scope).query("checkpoint == 'last'").droplevel("checkpoint")
    measured = columns(table.scope)
    values = last.join(costs.set_index("run")[COSTS], how="outer").reindex(columns=[c.key for c in measured])
    order = sorted(index.itertuples(), key=lambda cell: ROLES.index(cell.role))
    lines = []
    for row, pair in dict.fromkeys((cell.row, cell.pair) for cell in order):
        runs = [c.run for c in order if (c.row, c.pair) == (row, pair) and c.run in values.index]
        names = Text(row), Text(pair), Count(sum(run in last.index for run in runs))
        spreads = (_spread(values.loc[runs, column.key].dropna().astype(float)) for column in measured)
        lines.append(Line(tuple(map(Cell, (*names, *spreads))), table.roles[row]))
    names = (Column("row", "method"), Column("pair", "pair"), Column("n", "n", align="right"))
    title, legend = f"Details of suite {table.suite}", f"{_legend(table.scope)} {table.coverage}"
    return Sheet("details", table.suite, title, (*names, *measured), tuple(lines), legend)


def _spread(values):
    return Spread(float(values.mean()), standard_deviation(values))

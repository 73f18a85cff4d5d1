"""The suite's second table: calibration, likeness to the teacher and cost, a line a row and pair."""

from distillbench.reporting.collect import COSTS, headline
from distillbench.reporting.sheet import Cell, Column, Count, Line, Sheet, Spread, Text
from distillbench.reporting.statistics import standard_deviation
from distillbench.reporting.tables import ROLES


def _column(key, heading, form, unit="", deviation=True):
    return Column(key, heading, unit=unit, align="right", form=form, deviation=deviation, fields=(key, f"{key}_sd"))


COLUMNS = (  # by the name of the metric or cost
    _column("top1", "top-1", ".2f", "%"),
    _column("top5", "top-5", ".2f", "%"),
    _column("nll", "NLL", ".4f"),
    _column("brier", "Brier", ".4f"),
    _column("ece", "ECE", ".2f", "%"),
    _column("agreement", "agreement", ".2f", "%"),
    _column("kl_to_teacher", "KL to teacher", ".4f"),
    _column("parameters", "parameters", ",.0f", deviation=False),
    _column("multiply_adds", "multiply-adds", ",.0f", deviation=False),
    _column("seconds", "training", ".1f", "s"),
    _column("images_per_second", "images/s", ".0f"),
)
LEGEND = (
    "Test split, after the last epoch, mean ± standard deviation over runs, one a seed. NLL and KL(teacher || student)"
    " in nats at temperature 1; Brier score summed over classes (0 to 2); ECE with 15 bins of equal width; agreement:"
    " share of images for which student and teacher predict the same class. Parameters and multiply-adds (of the"
    " convolutions and linear layers, for one image) are the network's; training time and training images per second"
    " include the test after each epoch, and are comparable only where machines were the same and equally busy."
)


def details_sheet(table, index, metrics, costs):
    """The `sheet.Sheet` of the suite of a `tables.Table`; index, metrics, costs: as in its CSV files."""
    last = headline(metrics).query("checkpoint == 'last'").droplevel("checkpoint")
    values = last.join(costs.set_index("run")[COSTS], how="outer").reindex(columns=[c.key for c in COLUMNS])
    order = sorted(index.itertuples(), key=lambda cell: ROLES.index(cell.role))
    lines = []
    for row, pair in dict.fromkeys((cell.row, cell.pair) for cell in order):
        runs = [c.run for c in order if (c.row, c.pair) == (row, pair) and c.run in values.index]
        names = Text(row), Text(pair), Count(sum(run in last.index for run in runs))
        spreads = (_spread(values.loc[runs, column.key].dropna().astype(float)) for column in COLUMNS)
        lines.append(Line(tuple(map(Cell, (*names, *spreads))), table.roles[row]))
    columns = (Column("row", "method"), Column("pair", "pair"), Column("n", "n", align="right"), *COLUMNS)
    title, legend = f"Details of suite {table.suite}", f"{LEGEND} {table.coverage}"
    return Sheet("details", table.suite, title, columns, tuple(lines), legend)


def _spread(values):
    return Spread(float(values.mean()), standard_deviation(values))

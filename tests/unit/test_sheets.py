"""A sheet in every format, and what of collected metrics reaches one."""

from math import nan

import pandas as pd
import pytest
from standins import FIXTURES
from test_statistics import SCOPE, example

from distillbench.errors import UserError
from distillbench.reporting.collect import require_complete, shown
from distillbench.reporting.render import csv, html, json, latex, markdown
from distillbench.reporting.sheet import Cell, Column, Count, Difference, Line, Number, Outcome, Sheet, Spread, Text
from distillbench.reporting.statistics import Interval

GOLDEN = FIXTURES / "sheets"
SIGNS = "<b>&'\"|`* \\ % $x^{2}$ _a_ #1 ~ ± − -5 a-5"
PAIR = "a|b<i>-c_d"
OUTCOMES = ("n", "attempted", "planned", "last_mean", "last_sd")
DIFFERENCES = ("control", "difference_n", "difference_mean", "difference_low", "difference_high")


def column(key, *rest, **more):
    return Column(key, *rest, group=PAIR, **more)


def line(name, role, outcome, best, difference, pooled, count, note="", parameters=nan):
    failures = Cell(Text(note))
    cells = [Cell(Text(name)), Cell(Text("top1")), Cell(outcome, note and f"failed: {name}, {note}"), Cell(best)]
    cells += [difference and Cell(difference), failures, pooled and Cell(Text("top1")), pooled and Cell(pooled)]
    return Line((*cells, Cell(Count(count)), Cell(Spread(parameters, 0.0)), Cell(Text("a, b, <c>"))), role)


def hostile():
    columns = (
        Column("row", "method"),
        column("metric", shown=False),
        column("last", "last epoch", short="last", fields=OUTCOMES),
        column("best", "best (50 %)", align="right", form=".1f"),
        column("difference", "difference to control", short="difference", fields=DIFFERENCES),
        column("failures", shown=False),
        Column("metric", group="all pairs", shown=False),
        Column("difference", "difference", group="all pairs", short="difference", fields=DIFFERENCES),
        Column("count", "#", align="right"),
        Column("parameters", "size", unit="%", align="right", form=",.0f", deviation=False, fields=("size", "size_sd")),
        Column("list", "a_list"),
    )
    spread, nothing, none = Spread(1 / 3, 0.125), Spread(nan, nan), Interval(0, nan, nan, nan)
    above, below, across = Interval(3, 1.5, 0.001, 3.0), Interval(3, -1.5, -3.0, -0.5), Interval(2, -0.5, -2.0, 1.0)
    teacher, lost, part = Outcome(1, 1, 1, Spread(90.0, nan)), Outcome(0, 0, 3, nothing), Outcome(2, 3, 3, spread)
    signs = Difference("A|B", above), Difference(SIGNS, below)
    other = Difference("x", across), Difference("x", none)
    single = Difference("x", Interval(1, 2.0, nan, nan)), Difference("", above)
    lines = (
        line("Teacher", "teacher", teacher, Number(91.25), None, None, 1, parameters=78042.0),
        line("知識 é", "student", lost, Number(nan), None, None, 0),
        line(SIGNS, "distilled", Outcome(3, 3, 3, spread), Number(-0.5), *signs, 3),
        line("[1]", "distilled", part, Number(1.0), *other, 2, "s2: 5 % & <loss> is -5, a|b"),
        line("", "distilled", Outcome(0, 2, 3, nothing), Number(nan), *single, 0, "s0: no_reason"),
    )
    legend = f"Legend of {SIGNS}"
    return Sheet("main", "suite_2", "Suite <suite_2>", columns, lines, legend, "PARTIAL: 1 of 2", grouping="pair")


FORMATS = {
    "hostile.md": markdown.render,
    "hostile.tex": latex.render,
    "hostile-paper.tex": lambda sheet: latex.render(sheet, "tab:suite_2-main"),
    "hostile.html": html.render,
    "hostile.csv": csv.render,
    "hostile.json": json.render,
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_hostile_sheet_is_written_as_it_was(name):
    """If a change is meant: PYTHONPATH=tests python tests/unit/test_sheets.py, and read the difference."""
    assert FORMATS[name](hostile()) == (GOLDEN / name).read_text(encoding="utf-8")


def test_a_cell_is_found_by_row_and_key():
    sheet = hostile()
    column, cell = sheet.cell(SIGNS, "difference", PAIR)
    assert (column.heading, cell.value.control) == ("difference to control", "A|B")
    assert sheet.cell(SIGNS, "difference", "all pairs")[1].value.control == SIGNS
    assert sheet.cell("Teacher", "difference", PAIR)[1] is None
    with pytest.raises(KeyError):
        sheet.cell("Teacher", "difference")


def test_metrics_of_another_split_do_not_complete_a_run():
    index, metrics = example()
    require_complete("demo", index, metrics, SCOPE)
    run = index["run"].iloc[0]
    with pytest.raises(UserError, match=f"1 of 14 runs have no metrics yet, e.g. {run}"):
        require_complete(
            "demo", index, metrics.assign(split=metrics["split"].where(metrics["run"] != run, "val")), SCOPE
        )
    for checkpoint in ("last", "best"):
        here = (metrics["run"] != run) | (metrics["checkpoint"] == checkpoint)
        with pytest.raises(UserError, match=f"1 of 14 runs have no metrics yet, e.g. {run}"):
            require_complete("demo", index, metrics[here], SCOPE)


def test_metrics_of_another_split_are_there_for_who_asks():
    _, metrics = example()
    both = pd.concat([metrics, metrics.assign(split="val", value=1.0)])
    assert (shown(both, SCOPE._replace(split="val"))["top1"] == 1.0).all()
    assert shown(both, SCOPE).equals(shown(metrics, SCOPE)) and shown(both, SCOPE._replace(task="detection")).empty


def test_a_line_that_stands_twice_is_one_and_two_values_of_a_metric_are_one_line():
    _, metrics = example()
    twice = pd.concat([metrics, metrics])
    assert shown(twice, SCOPE).equals(shown(metrics, SCOPE))
    twice.iloc[0, twice.columns.get_loc("value")] += 1
    with pytest.raises(UserError, match=f"{metrics['run'][0]}: two values of top1 of the last predictions"):
        shown(twice, SCOPE)


if __name__ == "__main__":
    for name, render in FORMATS.items():
        (GOLDEN / name).write_text(render(hostile()), encoding="utf-8")

"""Methods keep the contract on the papers' pairs: a spread of what `make grid` tries."""

import re

import costs
import grid
import pytest
from standins import ROOT

from distillbench.checks import method as contract
from distillbench.config import components
from distillbench.config.suite import load_suite

CHEAP = (contract.gives_finite_losses, contract.trains_what_is_its_own)  # where a step takes a second
SPREAD = {  # by kind
    "same": ("CRD", "VID+dot"),
    "different": ("FITNET", "NST", "KDSVD mdistiller", "DKD+GKD+dot"),
    "Tiny-ImageNet": ("REVIEWKD",),
    "ImageNet": ("OFD",),
}
CELLS = [cell for cell in (*grid.grid(), *grid.combined()) if cell.pair == grid.PAIRS[cell.kind][0]]


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.row in SPREAD[cell.kind]], ids=str)
def test_a_method_keeps_the_contract_on_a_pair_of_the_papers(cell):
    rules = grid.RULES if cell.kind in ("same", "different") else CHEAP
    assert grid.outcome(cell, rules) == cell.expected


def test_the_spread_is_of_every_kind_and_the_grid_of_every_method_on_every_pair():
    assert {(cell.kind, cell.row) for cell in CELLS} >= {(kind, row) for kind, rows in SPREAD.items() for row in rows}
    cells = {(cell.row, cell.pair) for cell in grid.grid()}
    pairs = [pair for pairs in grid.PAIRS.values() for pair in pairs]
    assert len(pairs) == 17 and all((name, pair) in cells for name in components.packaged_methods() for pair in pairs)
    rows = [cell.row for cell in grid.combined()]
    assert rows.count("KD+GKD+dot") == rows.count("OFD+dot") == len(grid.PAIRS) and "VID mdistiller" in rows


@pytest.mark.parametrize("row", grid.REFUSED)
def test_what_is_refused_is_refused_and_nothing_else(row):
    """On all pairs of the smaller datasets."""
    for cell in grid.grid():
        if cell.row == row and cell.kind != "ImageNet":
            assert (grid.outcome(cell, rules=()) == grid.REFUSAL) == (cell.expected == grid.REFUSAL), cell


def test_a_broken_rule_and_a_refusal_that_nobody_expects_are_told(monkeypatch, capsys):
    cells = [cell for cell in grid.grid() if cell.pair[1:] == ("vgg13", "MobileNetV2")]
    (svd,) = (cell for cell in cells if cell.row == "KDSVD")
    monkeypatch.setitem(grid.REFUSED, "KDSVD", [])
    assert grid.outcome(svd, ()).startswith("refused: KDSVD: the stages of the student have")

    def never(keys):
        """it never holds"""
        raise contract.Broken("of course")

    assert grid.outcome(cells[0], (never,)) == "it never holds: Broken: of course"
    assert "BROKEN" in grid.table([(cells[0], "it never holds")])
    with pytest.raises(SystemExit, match="2"):
        grid.main(["no such method"])
    assert "no cell has all the words" in capsys.readouterr().err


@pytest.mark.parametrize("broken", [False, True])
def test_cells_that_are_not_as_expected_are_counted_and_fail(monkeypatch, capsys, broken):
    monkeypatch.setattr(grid, "RULES", ())
    if broken:
        monkeypatch.setitem(grid.REFUSED, "KDSVD", [])
    assert grid.main(["KDSVD vgg13", "SP vgg13", "--jobs", "1"]) == int(broken)
    printed = capsys.readouterr()
    number, refusal = (5, "BROKEN") if broken else (6, "refused")
    assert f"{number} of 6 cells as expected" in printed.out and f"1 {refusal}" in printed.out
    assert printed.err.count("(expected: ") == int(broken)


def test_maps_of_one_pixel_are_no_reason_to_break_a_rule():
    contract.can_be_replayed({"DISTILLER.STUDENT": "MobileNetV2", "DISTILLER.TYPE": "NONE"})


def test_the_documentation_has_the_table_of_the_grid_and_what_is_refused():
    """If this fails: python tools/grid.py"""
    page = (ROOT / "docs" / "methods.md").read_text()
    assert grid.table([(cell, cell.expected) for cell in grid.grid()]) in page
    told = re.findall(r"`(\w+) -> (\w+)`", page.partition("## On which pairs")[2].partition("\n## ")[0])
    assert sorted(told) == sorted(pair for pairs in grid.REFUSED.values() for pair in pairs)


def test_costs_are_those_of_the_methods_own_parts_and_relative_to_kd(monkeypatch):
    monkeypatch.setattr(costs, "IMAGES", 500)
    monkeypatch.setattr(costs, "BATCH", 4)
    kd = costs.built("KD", ("resnet20", "resnet8"))
    kd.pair, kd.counts = ("resnet20", "resnet8"), costs.counts(kd)
    assert costs.row("KD", kd, 1)[:-1] == ("KD", "", "", "1.00", "1.00")
    _, trained, remembered, _, operations, _ = costs.row("CRD", kd, 1)
    assert trained == f"{2 * (64 + 1) * 128:,}" and 2 * 500 * 128 < int(remembered.replace(",", "")) < 2 * 500 * 140
    assert 1.2 < float(operations) < 3
    assert 0.2 < float(costs.row("NONE", kd, 1)[3]) < 0.5  # of 40.8 and three times 12.5


def test_the_suite_of_all_methods_has_them_all():
    students = [cell for cell in load_suite("methods", ROOT).cells if cell.role != "teacher"]
    pairs = {cell.pair for cell in students}
    assert len(pairs) == 2
    for pair in pairs:
        trained = [cell.specification["method"]["name"] for cell in students if cell.pair == pair]
        assert sorted(trained) == sorted(components.packaged_methods()), pair

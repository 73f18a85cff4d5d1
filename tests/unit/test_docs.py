"""The documentation says what the code does."""

import re
import tomllib

import pandas as pd
import pytest
from renew_docs import BLOCKS, block
from standins import ROOT

from distillbench.commands import main
from distillbench.config import components
from distillbench.config.reference import reference
from distillbench.config.schema import all_keys
from distillbench.config.suite import load_suite
from distillbench.reporting.collect import METRICS, Scope
from distillbench.reporting.render import markdown
from distillbench.reporting.tables import build_table
from distillbench.store.index import COLUMNS
from distillbench.store.layout import CHECKPOINTS


def test_the_key_reference_is_the_declarations():
    """If this fails: python -m distillbench.config.reference > docs/params.md"""
    assert (ROOT / "docs" / "params.md").read_text() == reference()
    assert all(f"| `{name}` |" in reference() for name in all_keys())


def test_the_list_of_networks_is_what_the_command_prints(capsys):
    """If this fails, put what `distillbench models` prints into docs/networks.md."""
    assert main(["models"]) == 0
    printed = capsys.readouterr().out.partition("\n\n")[2]
    assert printed in (ROOT / "docs" / "networks.md").read_text()
    assert len([line for line in printed.splitlines() if line.startswith("|")]) == 31 + 2
    assert main(["models", "--dataset", "digits"]) == 0
    digits = capsys.readouterr().out
    assert re.search(r"\| digits +\| vgg8 +\| 3.92 .* 64@16 128@8 256@4 512@2 512@2 +\| 512 ", digits)
    assert len(components.networks("digits")) == digits.count("| digits ") and "those of" not in digits


def shape(text):
    """A table in Markdown without its numbers: the cells of each line as words, and the text below it."""
    lines = [line for line in text.splitlines() if line and not set(line) <= set("|- ")]
    words = (re.sub(r"[^\w.|]*\d+\.\d\d[],]?", "", line).replace("±", "") for line in lines if line.startswith("|"))
    rows = [[re.sub(r"\(\d+/(\d+)\)", r"(\1)", " ".join(cell.split())) for cell in line.split("|")] for line in words]
    return rows, " ".join(line for line in lines if not line.startswith("|"))


@pytest.mark.parametrize(("page", "suite", "build"), BLOCKS, ids=[f"{page} {suite}" for page, suite, _ in BLOCKS])
def test_tables_of_the_documentation_are_what_the_suites_make(page, suite, build):
    """Rows, columns, controls, seeds and legend. If this fails: tools/renew_docs.py"""
    planned = load_suite(suite, ROOT)
    index = pd.DataFrame(
        [(*(getattr(c, n) for n in COLUMNS[:-1]), c.specification.id) for c in planned.cells], columns=COLUMNS
    )
    scope = Scope("classification", "test", "published")
    place = (scope.task, scope.split)
    lines = [(run, *place, checkpoint, scope.headline, 90.0) for run in planned.runs for checkpoint in CHECKPOINTS]
    metrics = pd.DataFrame(lines, columns=METRICS)
    expected = markdown.render(build(build_table(suite, index, metrics, scope))).partition("\n\n")[2]
    (found,) = block(suite).findall((ROOT / page).read_text())
    assert shape(found[1]) == shape(expected)


def test_the_demo_on_two_kinds_of_arithmetic_begins_with_the_demo_of_the_table():
    text = (ROOT / "docs/demo.md").read_text()
    table = {row[0]: row[-1] for row in rows_of(block("demo").findall(text)[0][1])}
    compared = {
        row[0]: row[1] for row in rows_of(text.partition("## Two kinds of arithmetic")[2].partition("\n## ")[0])
    }
    differences = {label: value for label, value in compared.items() if " - " in label}
    assert len(differences) == 6
    for label, value in differences.items():
        row, _, control = label.partition(" - ")
        assert table[row] == f"{value} vs {control}"


def rows_of(text):
    return [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("|")
    ]


def test_the_readme_shows_both_commands_a_figure_and_a_table_of_100_columns_first():
    readme = (ROOT / "README.md").read_text()
    first = readme.partition("\n## ")[0]
    assert "make demo" in first and "make test" in first and "![" in first and "<!-- table demo -->" in first
    assert (
        max(map(len, readme.splitlines())) <= 120 and max(map(len, block("demo").search(first)[2].splitlines())) <= 100
    )


def test_neither_engine_nor_workflow_names_a_method():
    names = {*components.methods(), *components.trainers(), *components.transforms(), *components.aliases()} - {"base"}
    files = [*(ROOT / "src/distillbench/engine").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk"), ROOT / "Snakefile"]
    for path in files:
        words = set(re.findall(r"\w+", path.read_text()))
        assert not words & names, path


def test_every_page_of_the_documentation_is_linked_and_no_link_is_dead():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    linked = set()
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            linked.add((page.parent / target).resolve())
    assert set(pages[1:]) <= linked


def test_the_architecture_names_every_room_in_the_order_in_which_they_import():
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    held = [{room.strip() for room in layer.split("|")} for layer in layers]
    page = (ROOT / "docs/architecture.md").read_text().partition("## Rooms")[2].partition("## To add")[0]
    told = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in page.splitlines() if row.startswith("| `")]
    package = ROOT / "src/distillbench"
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert (
        set().union(*held) - {"__main__"}
        == {room for rooms in told for room in rooms}
        == there - {"__init__", "__main__"}
    )
    ranks = [next(i for i, layer in enumerate(held) if room in layer) for rooms in told for room in rooms]
    assert ranks == sorted(ranks)


def test_every_file_that_the_architecture_names_is_there():
    page = (ROOT / "docs/architecture.md").read_text()
    package = ROOT / "src/distillbench"
    named = {
        name for name in re.findall(r"`([\w/]+\.(?:py|smk|toml|md|json))`", page) if not re.search("[A-Z]{2}", name)
    }
    assert len(named) > 10
    for name in named:
        places = (package / name, ROOT / name, ROOT / "workflow/rules" / name, *package.glob(f"*/{name}"))
        assert any(place.exists() for place in places), name

"""The documentation says what the code does."""

import re
from pathlib import Path

from distillbench.config import components
from distillbench.config.reference import reference
from distillbench.config.schema import ALIAS, all_keys

ROOT = Path(__file__).resolve().parents[1]


def test_the_key_reference_is_the_declarations():
    """If this fails: python -m distillbench.config.reference > docs/params.md"""
    assert (ROOT / "docs" / "params.md").read_text() == reference()
    assert all(f"| `{name}` |" in reference() for name in all_keys())


def test_the_readme_names_both_commands_and_shows_the_demos_table():
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme
    assert (ROOT / "docs" / "demo-table.md").read_text().strip() in readme


def test_neither_engine_nor_workflow_names_a_method():
    names = {*components.methods(), *components.trainers(), components.gradient_scaling()["name"], ALIAS} - {"base"}
    files = [*(ROOT / "src/distillbench/engine").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk"), ROOT / "Snakefile"]
    for path in (path for path in files if path.stem not in components.trainers()):
        words = set(re.findall(r"\w+", path.read_text()))
        assert not words & names, path


def test_every_page_of_the_documentation_is_linked_and_no_link_is_dead():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    linked = set()
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            linked.add((page.parent / target).resolve())
    assert {page for page in pages[1:] if page.name != "demo-table.md"} <= linked

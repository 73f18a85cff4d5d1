"""The documentation says what the code does."""

from pathlib import Path

from distillbench.config.reference import reference
from distillbench.config.schema import all_keys

ROOT = Path(__file__).resolve().parents[1]


def test_the_key_reference_is_the_declarations():
    """If this fails: python -m distillbench.config.reference > docs/params.md"""
    assert (ROOT / "docs" / "params.md").read_text() == reference()
    assert all(f"| `{name}` |" in reference() for name in all_keys())


def test_the_readme_names_both_commands_and_shows_the_demos_table():
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme
    assert (ROOT / "docs" / "demo-table.md").read_text().strip() in readme

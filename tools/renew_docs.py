"""Put the tables and figures of the finished suites demo and controls into README.md and docs/.

    snakemake --profile profiles/local --config suite=demo
    snakemake --profile profiles/local --config suite=controls
    python tools/renew_docs.py

What docs/demo.md says of the numbers is written by hand.
"""

import re
import shutil
from pathlib import Path

from distillbench.reporting.render import markdown
from distillbench.reporting.results import read_results
from distillbench.reporting.sheets.main import main_sheet, summary_sheet

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = [
    ("README.md", "demo", summary_sheet),
    ("docs/demo.md", "demo", main_sheet),
    ("docs/demo.md", "controls", main_sheet),
]
FIGURES = ("accuracy", "differences")


def block(suite):
    """A pattern of three groups, the second being the table and its legend."""
    return re.compile(rf"(<!-- table {suite} -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main():
    for name, suite, build in BLOCKS:
        text = markdown.render(build(read_results(suite, root=ROOT).table)).partition("\n\n")[2]  # without the title
        page = (ROOT / name).read_text(encoding="utf-8")
        renewed, count = block(suite).subn(lambda found, text=text: f"{found[1]}\n{text}\n{found[3]}", page)
        assert count == 1, f"{name}: no table {suite}"
        (ROOT / name).write_text(renewed, encoding="utf-8")
    for figure in FIGURES:
        shutil.copy(ROOT / f"reports/demo/figures/{figure}.png", ROOT / f"docs/demo-{figure}.png")


if __name__ == "__main__":
    main()

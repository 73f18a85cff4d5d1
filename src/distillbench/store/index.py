"""The index of a suite: which run stands in which cell. Written while planning, read by everything behind."""

import csv
import io
from pathlib import Path

from distillbench.files import write_if_changed

COLUMNS = ("row", "role", "control", "pair", "teacher", "student", "seed", "run")


def write_index(suite, path):
    """results/suites/SUITE/index.csv, touched only if it changes."""
    write_if_changed(path, index_text(suite))


def index_text(suite):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in suite.cells:
        writer.writerow([*(getattr(cell, column) for column in COLUMNS[:-1]), cell.specification.id])
    return text.getvalue()


def index_path(suite_name, root="."):
    return Path(root) / "results" / "suites" / suite_name / "index.csv"

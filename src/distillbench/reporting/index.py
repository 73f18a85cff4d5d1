"""The index of a suite: which run stands in which cell. Written while planning, read by everything behind."""

import csv
import io
from pathlib import Path

from distillbench.config import components
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


def figure_names(suite):
    """The figures that a suite's rows give something to show, by their file's name."""
    return figures_of([cell.specification for cell in suite.cells], any(cell.control for cell in suite.cells))


def figures_of(specifications, compared):
    """The names of the figures that runs give something to show. compared: whether any row has a control."""
    methods, names = components.methods(), ["accuracy", "curves"]
    if compared:
        names.append("differences")
    transforms = [declared for specification in specifications for declared in specification.transforms.values()]
    names += dict.fromkeys(declared["figure"] for declared in transforms if declared["figure"])
    if any(methods.get(specification["method"]["name"], {}).get("temperature") for specification in specifications):
        names.append("gradients")
    return names

"""The files of suites, `params/NAME.yaml`: which there are, and which rows one names. Neither expands a suite."""

import re
from pathlib import Path

from distillbench.errors import UserError, one_of

NAME = r"[A-Za-z0-9_-]+"
TEACHER = "Teacher"  # the row of the teachers, in every suite


def suite_names(root="."):
    """The names of all suites, sorted."""
    return sorted(p.stem for p in (Path(root) / "params").glob("*.yaml") if re.fullmatch(NAME, p.stem))


def require_suite(name, root="."):
    """Raise UserError unless there is a suite of this name."""
    folder = Path(root) / "params"
    if not folder.is_dir():
        raise UserError("params/: no such folder here; run this in the project's directory")
    if not re.fullmatch(NAME, str(name)) or not (folder / f"{name}.yaml").exists():
        raise UserError(f"suite={name}: {one_of(name, suite_names(root), 'suite')}; a suite is a file params/NAME.yaml")


def row_names(name, root="."):
    """The rows as a suite's file names them, the teachers' first; one that is swept is several in the table.

    Raises UserError for a file that cannot be read.
    """
    from distillbench.config.yaml_file import read_yaml

    require_suite(name, root)
    methods = read_yaml(Path(root) / "params" / f"{name}.yaml").get("methods")
    return [TEACHER, *(row for row in methods or () if row.isprintable())]

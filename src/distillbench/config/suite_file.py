"""The files of suites: which there are, what they include, and which rows one names. None of this expands a suite.

A suite is a file `params/NAME.yaml`. What several share stands in files of folders below, `params/FOLDER/NAME.yaml`,
which are no suites, and is read with `include:`.
"""

import re
from pathlib import Path
from typing import NamedTuple

from distillbench.errors import UserError, one_of

NAME = r"[A-Za-z0-9_-]+"
INCLUDED = rf"(?:{NAME}/)*{NAME}\.yaml"  # by its path in params/
TEACHER = "Teacher"  # the row of the teachers, in every suite
INCLUDE = "include"


class Read(NamedTuple):
    """A suite's file with what it includes.

    content: the sections, merged; files: those that were read, "params/NAME.yaml", the suite's own last; places:
    {dotted place in content: the file that it stands in}.
    """

    content: dict
    files: tuple[str, ...]
    places: dict

    def file_of(self, place):
        """The file that a place stands in, or what is around it: "pairs[0].teacher", "base.SOLVER.LR"."""
        while place and place not in self.places:
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
        return self.places.get(place, self.files[-1])


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


def read_suite(name, root="."):
    """`Read` of params/NAME.yaml. Raises UserError where a file cannot be read, or includes what it cannot."""
    require_suite(name, root)
    return _read(f"{name}.yaml", (), root)


def _read(name, above, root):
    """`Read` of a file, by its path in params/. above: those that include it, the suite's own first."""
    from distillbench.config.yaml_file import merged, read_yaml

    file = f"params/{name}"
    own = read_yaml(Path(root) / file)
    content, files, places = {}, (), {}
    for other in _included(own.pop(INCLUDE, []), file, root):
        if other in (*above, name):
            circle = " -> ".join([*above, name, other][(*above, name).index(other) :])
            raise UserError(f"{file}: {INCLUDE}: goes in a circle: {circle}")
        read = _read(other, (*above, name), root)
        content, files, places = merged(content, read.content), (*files, *read.files), places | read.places
    places |= {place: file for place in _places(own)}
    return Read(merged(content, own), tuple(dict.fromkeys((*files, file))), places)


def _included(value, file, root):
    """The files that a file includes, in order. Raises UserError."""
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(INCLUDED, name):
            expected = "a file by its path in params/, or a list of such, e.g. common/cifar.yaml"
            raise UserError(f"{file}: {INCLUDE}: {name!r} is not valid here, expected {expected}")
        if names.count(name) > 1:
            raise UserError(f"{file}: {INCLUDE}: {name} stands twice; remove one")
        folder = Path(root) / "params"
        if not (folder / name).is_file():
            there = [path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml") if path.is_file()]
            raise UserError(f"{file}: {INCLUDE}: {one_of(name, set(there) - {Path(file).name}, 'file')}")
    return names


def _places(mapping, above=""):
    for key, value in mapping.items():
        yield (place := f"{above}{key}")
        if isinstance(value, dict):
            yield from _places(value, f"{place}.")


def row_names(name, root="."):
    """The rows as a suite's file and those that it includes name them, the teachers' first; one that is swept is
    several in the table.

    Raises UserError for a file that cannot be read.
    """
    methods = read_suite(name, root).content.get("methods")
    return [TEACHER, *(row for row in methods or () if row.isprintable())]

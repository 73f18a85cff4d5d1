"""Suites: what a params file says, expanded into runs."""

import itertools
from collections import Counter
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import NamedTuple

from distillbench.config import components, published
from distillbench.config.resolve import Written, needs_teacher, read_keys, resolve
from distillbench.config.schema import LOGGERS
from distillbench.config.specification import Specification, build_specification
from distillbench.config.suite_file import TEACHER
from distillbench.config.suite_sections import Row, read_sections
from distillbench.config.views import is_streamed
from distillbench.errors import UserError

SWITCHED = "`{}: {{}}` in a row switches it on"


class Cell(NamedTuple):
    """One run's place in a suite's table."""

    row: str  # the method's display name; "Teacher" for a teacher
    role: str  # "teacher", "student" (learns alone) or "distilled"
    control: str  # the row that it is compared with, or ""
    pair: str  # "TEACHER-STUDENT"
    teacher: str
    student: str
    seed: int
    specification: Specification
    notes: tuple[str, ...] = ()
    loggers: tuple[str, ...] = ()  # packages, see loggers.py
    stage: str = ""  # DATASET.STAGE

    @property
    def name(self):
        """What `only=` matches: ROW/PAIR/sSEED."""
        return f"{self.row}/{self.pair}/s{self.seed}"


@dataclass(frozen=True)
class Suite:
    """A params file, expanded. `cells` is in the order of scheduling: teachers first, then seed by seed.

    files: it and those that it includes, its own last; notes: on what is written in it and has no effect.
    """

    name: str
    files: tuple[str, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()

    @property
    def source(self):
        """The suite's own file."""
        return self.files[-1]

    @cached_property
    def runs(self):
        """{run id: Specification}, each run once, in the order of scheduling."""
        return {cell.specification.id: cell.specification for cell in self.cells}

    @cached_property
    def rounds(self):
        """{run id: n}: it is the n-th run of its cell of the table, from 0 on; the least n, where it is in several."""
        rounds, counts = {}, Counter()
        for cell in self.cells:
            place, run = (cell.row, cell.pair), cell.specification.id
            rounds[run] = min(counts[place], rounds.get(run, counts[place]))
            counts[place] += 1
        return rounds

    @cached_property
    def teachers(self):
        """{run id of a teacher: the canonical specification that teachers of other seeds share with it}"""
        return {
            cell.specification.id: Specification({**cell.specification.data, "seed": None}).canonical
            for cell in self.cells
            if cell.role == "teacher"
        }

    def sources(self):
        """{run id: where it was written down}, for its record."""
        return {
            cell.specification.id: {
                "file": self.source,
                "row": cell.row,
                "notes": list(cell.notes),
                "method_file": components.methods()[cell.specification["method"]["name"]].get("file"),
                **_network_files(cell.specification),
                **({"stage": cell.stage} if cell.stage else {}),
            }
            for cell in reversed(self.cells)
        }

    @cached_property
    def logged(self):
        """{run id: {package}} of the runs that are logged to more than their history.csv."""
        logged = {}
        for cell in self.cells:
            if cell.loggers:
                logged.setdefault(cell.specification.id, set()).update(cell.loggers)
        return logged

    def loggers(self, *runs):
        """What runs are logged to beside their history.csv."""
        return sorted(set().union(*(self.logged.get(run, ()) for run in runs)))

    def only(self, patterns):
        """The part of the suite that comma-separated shell patterns name, with the teachers that it needs.

        A pattern is ROW, ROW/PAIR or ROW/PAIR/sSEED, with * and ? as in a shell.
        """
        chosen = [cell for cell in self.cells if any(_matches(cell, pattern) for pattern in patterns.split(","))]
        names = {cell.name for cell in chosen}
        for pattern in patterns.split(","):
            if not any(_matches(cell, pattern) for cell in self.cells):
                rows = ", ".join(dict.fromkeys(cell.row for cell in self.cells))
                near = [cell.name for cell in self.cells if _matches(cell, pattern.split("/")[0])]
                hint = f"write e.g. {near[0]}" if near else f"rows are {rows}"
                raise UserError(f"only={pattern}: matches no run of suite {self.name}; {hint}")
        needed = {cell.specification.teacher_id for cell in chosen}
        cells = (c for c in self.cells if c.name in names or (c.role == "teacher" and c.specification.id in needed))
        return replace(self, cells=tuple(cells))


def _matches(cell, pattern):
    wanted = pattern.strip().split("/")
    return (
        all(fnmatchcase(part, want) for part, want in zip(cell.name.split("/"), wanted, strict=False))
        and len(wanted) <= 3
    )


def load_suite(name, root="."):
    """Read and expand params/NAME.yaml. Raises UserError, one line, for anything that is not right in it."""
    sections = read_sections(name, root)
    return _Expansion(sections).suite()


class _Expansion:
    """The cells of a suite, and what of its keys they take from where."""

    def __init__(self, sections):
        self.sections, self.cells, self.teachers, self.resolved = sections, {}, {}, {}
        self.places = {}  # {where: (`Written`, keys that runs read, those that they take from there)}

    def suite(self):
        sections = self.sections
        for seed, row, pair in itertools.product(sections.seeds, sections.rows, sections.pairs):
            made_by, teacher, role = self.teacher(pair, sections.teachers.seed_of(seed)), None, "student"
            if needs_teacher(row.written):
                teacher = {"kind": "run", "id": made_by.id, "checkpoint": sections.teachers.checkpoint}
                role = "distilled"
            self.add(row, role, pair, pair.student, seed, (pair.written, *row.layers), teacher)
        # stable: seed-major among students
        ordered = sorted(self.cells.values(), key=lambda cell: cell.role != "teacher")
        matched = sections.teachers.matched
        remedy = "choose other seeds" if matched else "write teacher_seed: matched or another teachers.seed"
        ordered = tuple(_with_overlaps(ordered, remedy))
        notes = {note for place in self.places.values() for note in _without_effect(*place)}.union(sections.notes)
        own = sorted(note for note in notes if note.startswith(f"{sections.files[-1]}: "))  # others serve other suites
        return Suite(sections.name, sections.files, ordered, tuple(own))

    def teacher(self, pair, seed):
        """The specification of a pair's teacher, resolved once for all rows."""
        key = (pair.name, seed)
        if key not in self.teachers:
            row = Row(TEACHER, self.sections.teachers.written, "")
            self.teachers[key] = self.add(row, "teacher", pair, pair.teacher, seed, ())
        return self.teachers[key]

    def add(self, row, role, pair, network, seed, layers, teacher=None):
        """Put a run into its cell; returns its specification."""
        layers = (self.sections.base, *layers)
        config, transforms, notes = self.resolve(row, pair, network, layers)
        protocol = self.sections.teachers.protocol if role == "teacher" else self.sections.protocol
        others = {"transforms": transforms, "teacher": teacher, "seed": seed, "protocol": protocol}
        specification = build_specification(config, **others)
        weighted = transforms or components.trainers()[config.SOLVER.TRAINER]["label"]
        if weighted and role == "distilled" and not row.control:
            notes += ("has no control, so that its gain cannot be told from its weights'; see docs/methods.md",)
        if row.published:
            notes += tuple(published.notes(row.published, row.written, layers, self.sections.dataset, pair))
        place = (pair.name, pair.teacher, pair.student, seed)
        others = (_loggers(config), config.DATASET.STAGE if is_streamed(specification["views"]["augmentation"]) else "")
        cell = Cell(row.name, role, row.control, *place, specification, notes, *others)
        self.cells.setdefault(cell.name, cell)
        return specification

    def resolve(self, row, pair, network, layers):
        """`Resolved` of a row and pair, whatever the seed: once for all of them."""
        key = (row.name, pair.name)
        if key not in self.resolved:
            facts = {"DISTILLER.TEACHER": pair.teacher, "DISTILLER.STUDENT": network}
            facts["DATASET.TYPE"] = self.sections.dataset
            written = row.written
            self.resolved[key] = resolve((*layers, Written(facts, frozenset(), written.where)), written)
            self.note_places(row, layers)
        return self.resolved[key]

    def note_places(self, row, layers):
        keys, above = set(read_keys(row.written, layers)), set()
        if not is_streamed(components.datasets()[self.sections.dataset]["augmentation"]):
            keys.discard("DATASET.STAGE")
        for there in (row.written, *reversed(layers)):  # the highest place decides a key's value
            if there not in row.layers:  # a published file is as it is
                _, read, taken = self.places.setdefault(there.where, (there, set(), set()))
                read.update(keys)
                taken.update(keys - above)
            above.update(there.values)


def _without_effect(written, read, taken):
    """Yield a line for each key and node in one place that decides nothing.

    read: the keys that runs read; taken: those whose value they take from this place, if it has one.
    """
    switches = {declared["node"]: SWITCHED.format(declared["node"]) for declared in components.transforms().values()}
    for key in written.values.keys() - taken:
        if key in read:
            yield f"{written.at(key)}: every run that reads it has another value above it; remove it"
            continue
        remedies = [remedy for node, remedy in switches.items() if key.startswith(f"{node}.")]
        (remedy,) = remedies or ["remove it or add a row that reads it"]
        yield f"{written.at(key)}: is read by no run; {remedy}"
    for node in written.nodes:
        if any(key.startswith(f"{node}.") for key in written.values):
            continue
        if node in switches:
            if "DISTILLER.TYPE" not in written.values:  # not a row
                yield f"{written.at(node)}: transforms nothing here; {switches[node]}"
        elif not any(key.startswith(f"{node}.") for key in read):
            yield f"{written.at(node)}: is empty and read by no run; remove it"


def _with_overlaps(cells, remedy):
    """The cells, with a note at each teacher whose network and seed are those of a student, too."""
    students = {(cell.student, cell.seed): cell.row for cell in reversed(cells) if cell.role != "teacher"}
    for cell in cells:
        if cell.role == "teacher" and (cell.teacher, cell.seed) in students:
            who = f"{cell.teacher} of seed {cell.seed} is a student in row {students[cell.teacher, cell.seed]}, too"
            cell = cell._replace(notes=(*cell.notes, f"{who}, and both start from the same weights; {remedy}"))
        yield cell


def _network_files(specification):
    """{"network_files": [the user's own that a run and its teacher have their networks from]}, {} if there are none."""
    own = (components.own_networks.get(name, {}).get("file") for name in specification.networks)
    files = sorted(set(filter(None, own)))
    return {"network_files": files} if files else {}


def _loggers(config):
    """The packages to which a resolved configuration asks a run to be logged."""
    return tuple(package for package, key in LOGGERS.items() if config[key.split(".")[0]][key.split(".")[1]])

"""Suites: `params/NAME.yaml`, read strictly and expanded into runs."""

import itertools
from collections import Counter
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from distillbench.config import components, method_files
from distillbench.config.resolve import Written, flatten, needs_teacher, read_keys, resolve
from distillbench.config.schema import all_keys
from distillbench.config.specification import Specification, build_specification, is_seed
from distillbench.config.suite_file import TEACHER, require_suite
from distillbench.config.yaml_file import read_yaml
from distillbench.errors import UserError, one_of
from distillbench.loggers import asked_for

SECTIONS = ("dataset", "seeds", "base", "teachers", "teacher_seed", "pairs", "method_files", "methods", "sweep")
REQUIRED = ("dataset", "seeds", "pairs", "methods")
MATCHED = 1000  # a matched teacher of student seed s has seed 1000 + s, in every suite
SWITCHED = "`{}: {{}}` in a row switches it on"
SET_ELSEWHERE = {"DATASET.TYPE": "dataset:", "DISTILLER.TEACHER": "pairs:", "DISTILLER.STUDENT": "pairs:"}


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

    @property
    def name(self):
        """What `only=` matches: ROW/PAIR/sSEED."""
        return f"{self.row}/{self.pair}/s{self.seed}"


@dataclass(frozen=True)
class Suite:
    """A params file, expanded. `cells` is in the order of scheduling: teachers first, then seed by seed."""

    name: str
    source: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()  # on what is written and has no effect

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

    def sources(self):
        """{run id: where it was written down}, for its record."""
        return {
            cell.specification.id: {
                "file": self.source,
                "row": cell.row,
                "notes": list(cell.notes),
                "method_file": components.methods()[cell.specification["method"]["name"]].get("file"),
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
    require_suite(name, root)
    source = f"params/{name}.yaml"
    return _Reader(name, source, read_yaml(Path(root) / source), root).suite()


class _Reader:
    """The sections of one params file, checked as they are read."""

    def __init__(self, name, source, content, root="."):
        self.name, self.source, self.content = name, source, content
        for section in content:
            if section not in SECTIONS:
                raise self.error(section, one_of(section, SECTIONS, "section"))
        for section in REQUIRED:
            if section not in content:
                raise self.error(section, f"is missing; a suite needs {', '.join(REQUIRED)}")
        files = content.get("method_files", [])
        if not isinstance(files, list) or not all(isinstance(file, str) and file for file in files):
            raise self.error("method_files", f"{files!r} is not valid here, expected a list of files, e.g. [my/kd2.py]")
        method_files.use(files, root, f"{source}: method_files")

    def error(self, place, message):
        return UserError(f"{self.source}: {place}: {message}")

    def flat(self, place, mapping, below_rows=False):
        """The configuration keys at a place; those that another section sets are refused."""
        written = flatten(mapping, f"{self.source}: {place}")
        for key, section in (SET_ELSEWHERE | ({"DISTILLER.TYPE": "methods:"} if below_rows else {})).items():
            if key in written.values:
                raise self.error(f"{place}.{key}", f"is set by `{section}`; remove it")
        return written

    def suite(self):
        base, teachers = self.flat("base", self.content.get("base", {}), below_rows=True), self.teachers()
        dataset, seeds, rows = self.dataset(), self.seeds(teachers["matched"]), self.rows()
        pairs = self.pairs(dataset)
        cells, places = {}, {}  # places: {where: (`Written`, keys that runs read, those that they take from there)}

        def add(pair, row, role, control, seed, network, layers, written, teacher=None):
            """Resolve a run and put it into its cell; returns its specification."""
            facts = {"DATASET.TYPE": dataset, "DISTILLER.TEACHER": pair["teacher"], "DISTILLER.STUDENT": network}
            facts = Written(facts, frozenset(), written.where)
            config, transforms, notes = resolve((base, *layers, facts), written)
            specification = build_specification(config, transforms=transforms, teacher=teacher, seed=seed)
            keys, above = set(read_keys(written, (base, *layers))), set()
            for there in (written, *reversed(layers), base):  # the highest place decides a key's value
                _, read, taken = places.setdefault(there.where, (there, set(), set()))
                read.update(keys)
                taken.update(keys - above)
                above.update(there.values)
            place = (pair["name"], pair["teacher"], pair["student"], seed)
            weighted = transforms or components.trainers()[config.SOLVER.TRAINER]["label"]
            if weighted and role == "distilled" and not control:
                notes += ("has no control, so that its gain cannot be told from its weights'; see docs/methods.md",)
            cell = Cell(row, role, control, *place, specification, notes, asked_for(config))
            cells.setdefault(cell.name, cell)
            return specification

        for seed, (row, written, control), pair in itertools.product(seeds, rows, pairs):
            teacher_seed = MATCHED + seed if teachers["matched"] else teachers["seed"]
            made_by = add(pair, TEACHER, "teacher", "", teacher_seed, pair["teacher"], (), teachers["written"])
            teacher, role = None, "student"
            if needs_teacher(written):
                teacher = {"kind": "run", "id": made_by.id, "checkpoint": teachers["checkpoint"]}
                role = "distilled"
            add(pair, row, role, control, seed, pair["student"], (pair["written"],), written, teacher)
        ordered = sorted(cells.values(), key=lambda cell: cell.role != "teacher")  # stable: seed-major among students
        remedy = "choose other seeds" if teachers["matched"] else "write teacher_seed: matched or another teachers.seed"
        ordered = tuple(_with_overlaps(ordered, remedy))
        notes = {note for place in places.values() for note in _without_effect(*place)}
        notes.update(self.unused([written for _, written, _ in rows]))
        return Suite(self.name, self.source, ordered, tuple(sorted(notes)))

    def unused(self, rows):
        """Yield a line for each option and file of this suite that no row uses."""
        if "checkpoint" in self.content.get("teachers", {}) and not any(map(needs_teacher, rows)):
            yield f"{self.source}: teachers.checkpoint: no row learns from a teacher; remove it or add a row"
        for name in components.own_methods.keys() - {row.values["DISTILLER.TYPE"] for row in rows}:
            file = components.own_methods[name]["file"]
            yield f"{self.source}: method_files: {file}: no row is of type {name}; remove it or add a row"

    def dataset(self):
        name = self.content["dataset"]
        if not isinstance(name, str) or name not in components.datasets():
            raise self.error("dataset", one_of(name, components.datasets(), "dataset"))
        return name

    def seeds(self, matched):
        def valid(seed):
            return is_seed(seed) and (not matched or is_seed(MATCHED + seed))

        expected = "different integers from 0 on, below 2**53, e.g. [0, 1, 2]"
        return self.list_of("seeds", self.content["seeds"], valid, expected)

    def list_of(self, place, values, valid, expected):
        if (
            not isinstance(values, list)
            or not values
            or not all(map(valid, values))
            or any(values.count(v) > 1 for v in values)
        ):
            raise self.error(place, f"{values!r} is not valid here, expected a list of {expected}")
        return values

    def teachers(self):
        section = self.content.get("teachers", {})
        if not isinstance(section, dict):
            raise self.error("teachers", f"expected a mapping of keys to values, found {section!r}")
        options = {"seed": 0, "checkpoint": "last"} | {k: v for k, v in section.items() if k in ("seed", "checkpoint")}
        if not is_seed(options["seed"]):
            raise self.error("teachers.seed", f"{options['seed']!r} is not valid here, expected an integer from 0 on")
        if options["checkpoint"] not in ("last", "best"):
            raise self.error(
                "teachers.checkpoint", f"{options['checkpoint']!r} is not valid here, expected last or best"
            )
        mode = self.content.get("teacher_seed", "fixed")
        if mode not in ("fixed", "matched"):
            raise self.error("teacher_seed", f"{mode!r} is not valid here, expected fixed or matched")
        if mode == "matched" and "seed" in section:
            rule = f"a teacher has its student's seed + {MATCHED}"
            raise self.error("teachers.seed", f"contradicts `teacher_seed: matched`, where {rule}; remove one of them")
        written = self.flat("teachers", {k: v for k, v in section.items() if k not in options})
        if "DISTILLER.TYPE" in written.values:
            raise self.error("teachers.DISTILLER.TYPE", "teachers learn from the labels alone; remove it")
        written = Written({**written.values, "DISTILLER.TYPE": "NONE"}, written.nodes, written.where)
        return {**options, "matched": mode == "matched", "written": written}

    def pairs(self, dataset):
        expected = "mappings {teacher: NETWORK, student: NETWORK}"
        pairs = []
        for i, entry in enumerate(
            self.list_of("pairs", self.content["pairs"], lambda v: isinstance(v, dict), expected)
        ):
            for side in ("teacher", "student"):
                if side not in entry:
                    raise self.error(
                        f"pairs[{i}].{side}", f"is missing; a pair needs teacher and student, e.g. {expected}"
                    )
                self.require_network(f"pairs[{i}].{side}", entry[side], dataset)
            written = self.flat(
                f"pairs[{i}]", {k: v for k, v in entry.items() if k not in ("teacher", "student")}, True
            )
            pairs.append({"teacher": entry["teacher"], "student": entry["student"], "written": written})
            pairs[-1]["name"] = f"{entry['teacher']}-{entry['student']}"
        names = [pair["name"] for pair in pairs]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise self.error(f"pairs[{i}]", f"{name} stands twice; remove one")
        return pairs

    def require_network(self, place, name, dataset):
        known = components.networks(dataset)
        if not known:
            raise self.error(place, f"there are no networks for {dataset} yet; choose another dataset")
        if isinstance(name, str) and name not in known and any(name in zoo for zoo in components.zoos().values()):
            raise self.error(place, f"{name} is no network for {dataset}; valid: {', '.join(sorted(known))}")
        if not isinstance(name, str) or name not in known:
            raise self.error(place, one_of(name, known, "network"))

    def rows(self):
        """[(display name, `Written`, control's display name or "")], sweeps expanded."""
        methods = self.content["methods"]
        if not isinstance(methods, dict) or not methods:
            raise self.error("methods", "expected a mapping of row names to keys, e.g. NONE: {DISTILLER.TYPE: NONE}")
        raw = {}
        for name, entry in methods.items():
            if not isinstance(entry, dict):
                raise self.error(f"methods.{name}", f"expected a mapping of keys to values, found {entry!r}")
            if set("/,") & set(name) or name.strip() != name or not name.isprintable() or name in ("", TEACHER):
                rule = (
                    "a row's name is text without / and comma, control characters and space around it, and not Teacher"
                )
                raise self.error(f"methods.{name}", f"{rule}; {name!r} is not")
            for reference in ("like", "control"):
                other = entry.get(reference, name if reference == "like" else None)
                if reference in entry and (not isinstance(other, str) or other not in methods or other == name):
                    raise self.error(
                        f"methods.{name}.{reference}", one_of(other, [m for m in methods if m != name], "row")
                    )
            raw[name] = self.flat(f"methods.{name}", {k: v for k, v in entry.items() if k not in ("like", "control")})
        rows = {name: (self.inherited(name, raw), methods[name].get("control", "")) for name in methods}
        return self.swept(rows)

    def inherited(self, name, raw):
        """A row's keys on top of those of the row that it is `like:`."""
        written, seen = raw[name], [name]
        while "like" in self.content["methods"][seen[-1]]:
            below = self.content["methods"][seen[-1]]["like"]
            if below in seen:
                raise self.error(f"methods.{name}.like", f"goes in a circle: {' -> '.join([*seen, below])}")
            written = written.over(raw[below])
            seen.append(below)
        return written

    def swept(self, rows):
        """Every row that reads a swept key, once for each combination of values."""
        sweep = self.content.get("sweep", {})
        if not isinstance(sweep, dict):
            raise self.error("sweep", f"expected a mapping of keys to lists of values, found {sweep!r}")
        values = {}
        for key, options in sweep.items():
            valid = [k for k in all_keys() if k not in SET_ELSEWHERE and k != "DISTILLER.TYPE"]
            if key not in valid:
                raise self.error(f"sweep.{key}", one_of(key, valid, "key"))
            options = self.list_of(f"sweep.{key}", options, lambda v: True, f"values of {key}")
            values[key] = [all_keys()[key].check(value, f"{self.source}: sweep.{key}") for value in options]
        variants = {name: self.variants(name, written, values) for name, (written, _) in rows.items()}
        for key in values:
            if not any(key in read_keys(written) for written, _ in rows.values()):
                raise self.error(f"sweep.{key}", "is read by no row; remove it or add a row that reads it")
        labels = [label for name in rows for label in variants[name]]
        for label in labels:
            if labels.count(label) > 1:
                raise self.error("sweep", f"makes a second row {label}; remove or rename the row of that name")
        return [
            (label, written, _same_variant(variants.get(rows[name][1], {}), setting, rows[name][1]))
            for name in rows
            for label, (written, setting) in variants[name].items()
        ]

    def variants(self, name, written, values):
        """{display name: (`Written`, {swept key: value})} of a row."""
        mine = {key: options for key, options in values.items() if key in read_keys(written)}
        result = {}
        for combination in itertools.product(*mine.values()):
            setting = dict(zip(mine, combination, strict=True))
            label = " ".join([name, *(f"{key}={_short(value)}" for key, value in setting.items())])
            result[label] = (Written({**written.values, **setting}, written.nodes, written.where), setting)
        return result


def _without_effect(written, read, taken):
    """Yield a line for each key and node in one place that decides nothing.

    read: the keys that runs read; taken: those whose value they take from this place, if it has one.
    """
    switches = {declared["node"]: SWITCHED.format(declared["node"]) for declared in components.transforms().values()}
    for key in written.values.keys() - taken:
        if key in read:
            yield f"{written.where}.{key}: every run that reads it has another value above it; remove it"
            continue
        remedies = [remedy for node, remedy in switches.items() if key.startswith(f"{node}.")]
        (remedy,) = remedies or ["remove it or add a row that reads it"]
        yield f"{written.where}.{key}: is read by no run; {remedy}"
    for node in written.nodes:
        if any(key.startswith(f"{node}.") for key in written.values):
            continue
        if node in switches:
            if "DISTILLER.TYPE" not in written.values:  # not a row
                yield f"{written.where}.{node}: transforms nothing here; {switches[node]}"
        elif not any(key.startswith(f"{node}.") for key in read):
            yield f"{written.where}.{node}: is empty and read by no run; remove it"


def _same_variant(variants, setting, control):
    """The control's variant that agrees with `setting` in every key that the control reads too."""
    for label, (_, own) in variants.items():
        if all(setting.get(key, value) == value for key, value in own.items()):
            return label
    return control


def _with_overlaps(cells, remedy):
    """The cells, with a note at each teacher whose network and seed are those of a student, too."""
    students = {(cell.student, cell.seed): cell.row for cell in reversed(cells) if cell.role != "teacher"}
    for cell in cells:
        if cell.role == "teacher" and (cell.teacher, cell.seed) in students:
            who = f"{cell.teacher} of seed {cell.seed} is a student in row {students[cell.teacher, cell.seed]}, too"
            cell = cell._replace(notes=(*cell.notes, f"{who}, and both start from the same weights; {remedy}"))
        yield cell


def _short(value):
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).replace(" ", "").replace(",", ";")

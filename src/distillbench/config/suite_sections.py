"""The sections of a suite's file `params/NAME.yaml`, read strictly: nothing in it is unknown, or without a meaning."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

from distillbench.config import components, own_files
from distillbench.config.protocols import CHOOSING, read_protocol
from distillbench.config.published import Published, as_its_code, read_published
from distillbench.config.resolve import Written, flatten, needs_teacher, read_keys
from distillbench.config.schema import all_keys
from distillbench.config.specification import PUBLISHED, is_seed
from distillbench.config.suite_file import INCLUDE, TEACHER, read_suite
from distillbench.errors import UserError, one_of

SECTIONS = (
    INCLUDE,
    "dataset",
    "protocol",
    "allow_seen_teacher",
    "seeds",
    "base",
    "teachers",
    "teacher_seed",
    "pairs",
    "network_files",
    "method_files",
    "methods",
    "sweep",
)
REQUIRED = ("dataset", "seeds", "pairs", "methods")
OPTIONS = ("like", "control", "published")  # of a row, besides its keys
MATCHED = 1000  # a matched teacher of student seed s has seed 1000 + s, in every suite
SET_ELSEWHERE = {"DATASET.TYPE": "dataset:", "DISTILLER.TEACHER": "pairs:", "DISTILLER.STUDENT": "pairs:"}


class Teachers(NamedTuple):
    """The teachers' keys and protocol, their seed unless it is `matched` to the student's, and the checkpoint that
    teaches.
    """

    seed: int
    checkpoint: str
    protocol: str | dict
    matched: bool
    written: Written

    def seed_of(self, student):
        """The seed of the teacher of a student of a seed."""
        return MATCHED + student if self.matched else self.seed


class Pair(NamedTuple):
    """Two networks and the keys of their runs."""

    teacher: str
    student: str
    written: Written

    @property
    def name(self):
        return f"{self.teacher}-{self.student}"


class Row(NamedTuple):
    """A row of the table: its display name, its keys, the display name of its control or "", a file with more keys."""

    name: str
    written: Written
    control: str
    published: Published | None = None

    @property
    def layers(self):
        """Keys of the row that are below its own and above those of its pair."""
        return (self.published.written,) if self.published else ()


@dataclass(frozen=True)
class Sections:
    """What a suite's file says, with those that it includes.

    files: all of them, the suite's own last; notes: on options and files in them that no row uses.
    """

    name: str
    files: tuple[str, ...]
    dataset: str
    protocol: str | dict
    seeds: tuple[int, ...]
    base: Written
    teachers: Teachers
    pairs: tuple[Pair, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def read_sections(name, root="."):
    """`Sections` of params/NAME.yaml, its own files in use. Raises UserError, one line, for the first fault."""
    return _Reader(name, read_suite(name, root), root).sections()


class _Reader:
    """The sections of a suite, checked as they are read."""

    def __init__(self, name, read, root="."):
        self.name, self.read, self.content, self.root = name, read, read.content, root
        for section in self.content:
            if section not in SECTIONS:
                raise self.error(section, one_of(section, SECTIONS, "section"))
        for section in REQUIRED:
            if section not in self.content:
                raise self.error(section, f"is missing; a suite needs {', '.join(REQUIRED)}")
        own_files.use(self.files("method_files"), self.files("network_files"), root, self.read.file_of)

    def sections(self):
        default = CHOOSING if self.content.get("sweep") else PUBLISHED
        self.protocol = read_protocol(self.content.get("protocol", default), self.place("protocol"))
        base, teachers = self.flat("base", self.content.get("base", {}), below_rows=True), self.teachers()
        dataset, seeds = self.dataset(), tuple(self.seeds(teachers.matched))
        pairs, rows = self.pairs(dataset), self.rows(dataset, base)
        notes = tuple(self.unused([row.written for row in rows], pairs))
        return Sections(self.name, self.read.files, dataset, self.protocol, seeds, base, teachers, pairs, rows, notes)

    def files(self, section):
        files = self.content.get(section, [])
        if not isinstance(files, list) or not all(isinstance(file, str) and file for file in files):
            raise self.error(section, f"{files!r} is not valid here, expected a list of files, e.g. [my/own.py]")
        return files

    def place(self, place):
        """A place with the file that it stands in, for messages."""
        return f"{self.read.file_of(place)}: {place}"

    def error(self, place, message):
        return UserError(f"{self.place(place)}: {message}")

    def flat(self, place, mapping, below_rows=False):
        """The configuration keys at a place; those that another section sets are refused."""
        below = len(place) + 1
        files = {name[below:]: file for name, file in self.read.places.items() if name.startswith(f"{place}.")}
        elsewhere = {key: f"{file}: {place}" for key, file in files.items() if file != self.read.file_of(place)}
        written = flatten(mapping, self.place(place), elsewhere)
        for key, section in (SET_ELSEWHERE | ({"DISTILLER.TYPE": "methods:"} if below_rows else {})).items():
            if key in written.values:
                raise self.error(f"{place}.{key}", f"is set by `{section}`; remove it")
        return written

    def unused(self, rows, pairs):
        """Yield a line for each option and file of this suite that no row and no pair uses, and one on its default
        protocol, if that is none of the papers'.
        """
        if self.content.get("sweep") and "protocol" not in self.content:
            default = f"{{holdout: {CHOOSING['holdout']}}}, as a sweep is to choose by"
            remedy = f"write it, or `protocol: {PUBLISHED}` to choose by the test images"
            yield f"{self.read.files[-1]}: protocol: is {default}; {remedy}"
        if "checkpoint" in self.content.get("teachers", {}) and not any(map(needs_teacher, rows)):
            yield f"{self.place('teachers.checkpoint')}: no row learns from a teacher; remove it or add a row"
        for name in components.own_methods.keys() - {row.values.get("DISTILLER.TYPE") for row in rows}:
            file = components.own_methods[name]["file"]
            yield f"{self.place('method_files')}: {file}: no row is of type {name}; remove it or add a row"
        used = {components.own_networks.get(name, {}).get("file") for pair in pairs for name in pair[:2]}
        for file in dict.fromkeys(declared["file"] for declared in components.own_networks.values()):
            if file not in used:
                yield f"{self.place('network_files')}: {file}: no pair has a network of it; remove it or add a pair"

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
        options = {"seed": 0, "checkpoint": "last", "protocol": self.protocol}
        options |= {name: section[name] for name in options.keys() & section.keys()}
        if not is_seed(options["seed"]):
            raise self.error("teachers.seed", f"{options['seed']!r} is not valid here, expected an integer from 0 on")
        if options["checkpoint"] not in ("last", "best"):
            raise self.error(
                "teachers.checkpoint", f"{options['checkpoint']!r} is not valid here, expected last or best"
            )
        options["protocol"] = self.teachers_protocol(options["protocol"])
        mode = self.content.get("teacher_seed", "fixed")
        if mode not in ("fixed", "matched"):
            raise self.error("teacher_seed", f"{mode!r} is not valid here, expected fixed or matched")
        if mode == "matched" and "seed" in section:
            rule = f"a teacher has its student's seed + {MATCHED}"
            raise self.error("teachers.seed", f"contradicts `teacher_seed: matched`, where {rule}; remove one of them")
        written = self.flat("teachers", {k: v for k, v in section.items() if k not in options})
        if "DISTILLER.TYPE" in written.values:
            raise self.error("teachers.DISTILLER.TYPE", "teachers learn from the labels alone; remove it")
        written = written._replace(values={**written.values, "DISTILLER.TYPE": "NONE"})
        return Teachers(**options, matched=mode == "matched", written=written)

    def teachers_protocol(self, value):
        """Raises UserError where teachers see what students hold out, and the suite does not say that they may."""
        protocol = read_protocol(value, self.place("teachers.protocol"))
        allowed, place = self.content.get("allow_seen_teacher", False), "allow_seen_teacher"
        if not isinstance(allowed, bool):
            raise self.error(place, f"{allowed!r} is not valid here, expected true or false")
        seen = protocol != self.protocol != PUBLISHED
        if seen and not allowed:
            rule = "teachers see images that their students hold out, so that the best epoch is chosen on seen images"
            raise self.error("teachers.protocol", f"{rule}; remove it, or write `allow_seen_teacher: true`")
        if allowed and not seen:
            raise self.error(place, "no teacher sees images that a student holds out; remove it")
        return protocol

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
            pairs.append(Pair(entry["teacher"], entry["student"], written))
        names = [pair.name for pair in pairs]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise self.error(f"pairs[{i}]", f"{name} stands twice; remove one")
        return tuple(pairs)

    def require_network(self, place, name, dataset):
        try:
            components.network(name, dataset)
        except UserError as error:
            raise self.error(place, error) from None

    def rows(self, dataset, base):
        """Each `Row`, sweeps expanded. base: keys below them."""
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
            raw[name] = self.flat(f"methods.{name}", {k: v for k, v in entry.items() if k not in OPTIONS})
        return self.swept([self.row(name, raw, dataset) for name in methods], base)

    def row(self, name, raw, dataset):
        """`Row` with its keys on top of those of the row that it is `like:`, whose file it has unless it names one."""
        methods, written, seen = self.content["methods"], raw[name], [name]
        while "like" in methods[seen[-1]]:
            below = methods[seen[-1]]["like"]
            if below in seen:
                raise self.error(f"methods.{name}.like", f"goes in a circle: {' -> '.join([*seen, below])}")
            written = written.over(raw[below])
            seen.append(below)
        row = Row(name, written, methods[name].get("control", ""))
        for other in seen:
            if "published" in methods[other]:
                return self.published(row, f"methods.{other}.published", methods[other]["published"], dataset)
        return row

    def published(self, row, place, file, dataset):
        """The row with the method and the keys of a published file, as far as it has no own."""
        if not isinstance(file, str) or not file:
            raise self.error(place, f"{file!r} is not valid here, expected a file, e.g. configs/cifar100/at.yaml")
        try:
            found = read_published(file, self.root)
        except UserError as error:
            raise self.error(place, str(error)) from None
        if found.elsewhere["DATASET.TYPE"] not in (None, dataset):
            its = found.elsewhere["DATASET.TYPE"]
            raise self.error(place, f"{file} is for {its}, this suite for {dataset}; write a file for {dataset}")
        method = row.written.values.get("DISTILLER.TYPE", found.method)
        if method is None:
            return row
        written = row.written._replace(values={"DISTILLER.TYPE": method, **row.written.values})
        return row._replace(written=written, published=as_its_code(found, method))

    def swept(self, rows, base):
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
            values[key] = [all_keys()[key].check(value, self.place(f"sweep.{key}")) for value in options]
        variants = {row.name: self.variants(row, base, values) for row in rows}
        for key in values:
            if not any(key in read_keys(row.written, (base, *row.layers)) for row in rows):
                raise self.error(f"sweep.{key}", "is read by no row; remove it or add a row that reads it")
        labels = [label for row in rows for label in variants[row.name]]
        for label in labels:
            if labels.count(label) > 1:
                raise self.error("sweep", f"makes a second row {label}; remove or rename the row of that name")
        return tuple(
            row._replace(
                name=label, written=written, control=_same_variant(variants.get(row.control, {}), setting, row.control)
            )
            for row in rows
            for label, (written, setting) in variants[row.name].items()
        )

    def variants(self, row, base, values):
        """{display name: (`Written`, {swept key: value})} of a row."""
        read, written = read_keys(row.written, (base, *row.layers)), row.written
        mine = {key: options for key, options in values.items() if key in read}
        result = {}
        for combination in itertools.product(*mine.values()):
            setting = dict(zip(mine, combination, strict=True))
            label = " ".join([row.name, *(f"{key}={_short(value)}" for key, value in setting.items())])
            result[label] = (written._replace(values={**written.values, **setting}), setting)
        return result


def _same_variant(variants, setting, control):
    """The control's variant that agrees with `setting` in every key that the control reads too."""
    for label, (_, own) in variants.items():
        if all(setting.get(key, value) == value for key, value in own.items()):
            return label
    return control


def _short(value):
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).replace(" ", "").replace(",", ";").replace("/", "|")  # as a row's name has neither

"""Which teachers get a table of their logits: those whose students would ask more of them than the table costs."""

import shutil
from typing import NamedTuple

from distillbench.errors import UserError, one_of
from distillbench.files import read_json, to_json, write_if_changed
from distillbench.store import attempts
from distillbench.store.layout import FAILURE
from distillbench.store.tables import (
    ABSENT,
    Key,
    aside,
    header_of,
    key_of,
    problem_of,
    replaces_teacher,
    rows_done,
    shape_of,
    size_of,
    table_path,
)

MODES = ("auto", "always", "never")
JOB = 20_000  # passes of a small teacher that take as long as the start of a job, some seconds


def require_mode(text):
    """Raises UserError unless it is a mode."""
    if text not in MODES:
        raise UserError(f"table={text}: {one_of(text, MODES, 'mode')}")
    return text


class Planned(NamedTuple):
    """What is decided on the table of a teacher.

    epochs: of the students that would look up in it, times their views; shape: (N, V, C); begun: whether one of them
    has begun to; problem: why it has to be made, "" if it is there; used: whether these students look up in it, and
    why, for people.
    """

    key: Key
    epochs: int
    shape: tuple[int, int, int]
    begun: bool
    problem: str
    used: bool = False
    why: str = ""

    @property
    def size(self):
        """Bytes."""
        return size_of(self.shape)

    @property
    def to_make(self):
        return self.used and bool(self.problem)


def plan_tables(suite, store, mode="auto"):
    """{Key: `Planned`} of the teachers that untrained runs of a suite ask for nothing but logits.

    mode: "auto" makes a table if it saves more passes of the teacher than it costs, and the disk has room; "always"
    and "never" whatever that says. One that a run in flight looks up in is always made.
    """
    asked = {}
    for run in store.untrained(suite.runs):
        specification = suite.runs[run]
        if replaces_teacher(specification) and (source := attempts.teacher_source(store.work(run))) != "live":
            asked.setdefault(key_of(specification), []).append((specification, source == "table"))
    free, found = _free(store.results), {}
    for key in sorted(asked):
        (specification, _), *_ = students = asked[key]
        epochs = sum(epochs_of(student) for student, _ in students)
        begun = any(begun for _, begun in students)
        table = Planned(key, epochs, shape_of(specification), begun, problem(store, specification, key))
        found[key] = table = decided(table, mode, free)
        free -= table.size * table.to_make
    return found


def epochs_of(specification):
    """How often a run asks its teacher about all training images."""
    return specification["schedule"]["EPOCHS"] * specification["views"]["count"]


def problem(store, specification, key):
    """Why the table of a run's teacher is not the one that is meant; "" if it is."""
    return problem_of(table_path(store.results, key), _header(store, specification, key))


def _header(store, specification, key):
    record = store.record(key.run)
    return header_of(specification, key, record and record["weights"][key.checkpoint])


def decided(table, mode, free):
    """The table with the decision on it and the reason, for people. free: bytes on the disk."""
    images, views, _ = table.shape
    asked, cost, fits = table.epochs * images, views * images + JOB, table.size <= free
    pays, counted = asked > cost, f"students ask for {asked} passes of the teacher, the table costs {cost}"
    if table.begun:
        used, why = True, "a run in flight looks up in it"
    elif mode != "auto":
        used, why = mode == "always", f"table={mode}"
    elif not table.problem:
        used, why = True, "it is there"
    else:
        used, why = pays and fits, counted if fits or not pays else f"{free / 1e6:.1f} MB are free"
    return table._replace(used=used, why=why)


def states(suite, store):
    """{Key: (state, detail)} of the tables that runs of a suite may look up in, as far as there is something to tell.

    States: here, being made, stopped, stale, failed, missing (it is planned).
    """
    students = {key_of(s): s for s in suite.runs.values() if replaces_teacher(s)}
    planned = read_planned(suite.name, store.results)
    found = {key: _state(store, key, students[key], planned.get(key)) for key in sorted(students)}
    return {key: state for key, state in found.items() if state}


def _state(store, key, specification, planned):
    path, header = table_path(store.results, key), _header(store, specification, key)
    shape = shape_of(specification)
    if not (problem := problem_of(path, header)):
        return "here", f"{size_of(shape) / 1e6:.1f} MB"
    if aside(path).exists():
        done = f"{rows_done(path, header)} of {shape[0] * shape[1]} views"
        return "being made" if store.running(key.run) else "stopped", done
    if path.exists():
        return "stale", problem
    if (store.work(key.run) / FAILURE).exists():
        return "failed", store.failure(key.run)
    return ("missing", planned.why) if planned and planned.used else None


def planned_path(suite, results):
    return results / "tables" / f"{suite}.json"


def write_planned(tables, suite, results):
    """Write down what was decided for a suite, by its name: a workflow's jobs decide nothing."""
    entries = [{**table._asdict(), "key": table.key._asdict()} for table in tables.values()]
    write_if_changed(planned_path(suite, results), to_json({"tables": entries}))


def read_planned(suite, results):
    """{Key: `Planned`} as it was written down; {} where nothing was."""
    path = planned_path(suite, results)
    try:
        entries = read_json(path)["tables"] if path.exists() else []
        tables = [Planned(**{**entry, "key": Key(**entry["key"])}) for entry in entries]
    except (KeyError, TypeError):
        raise UserError(f"{path}: not what was planned; remove it and plan again") from None
    return {table.key: table for table in tables}


def replaced(tables, store):
    """A line on each table that is there, and is made again."""
    found = (table for table in tables.values() if table.to_make and table.problem != ABSENT)
    return [f"{table_path(store.results, table.key)}: {table.problem}; it is made again" for table in found]


def summary(tables, store):
    """Lines on what was decided, for people."""
    lines = []
    for (run, checkpoint), table in tables.items():
        what = "to make" if table.to_make else "used" if table.used else "not made"
        lines.append(f"table    {run} ({checkpoint}) {what}, {table.size / 1e6:.1f} MB: {table.why}")
    if needed := sum(table.size for table in tables.values() if table.to_make):
        lines += replaced(tables, store)
        lines.append(f"tables take {needed / 1e6:.1f} MB, {_free(store.results) / 1e6:.1f} MB are free")
    return lines


def _free(results):
    """Bytes that are free where tables are, or will be: the folder may be a link to another disk."""
    folder = results / "tables"
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    return shutil.disk_usage(there).free

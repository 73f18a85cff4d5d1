"""The suite's results: teacher and student alone first, then the methods, by pairs, with differences to controls."""

from dataclasses import dataclass
from typing import NamedTuple

from distillbench.reporting.collect import Scope, shown
from distillbench.reporting.statistics import Interval, paired_difference, pooled_difference

ROLES = ("teacher", "student", "distilled")  # the order of the rows
POOLED = "all pairs"


class Entry(NamedTuple):
    """What a row says of a pair. Accuracies in percent; `last` and `best` hold one value a seed."""

    row: str
    pair: str
    planned: int
    attempted: int
    last: dict
    best: dict
    control: str
    difference: Interval | None
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A suite's results: roles by row, entries by (row, pair), pooled differences by row."""

    suite: str
    rows: list
    pairs: list
    roles: dict
    entries: dict
    pooled: dict
    runs: int
    finished: int
    coverage: str  # a sentence: which variation the deviations and intervals cover
    scope: Scope

    @property
    def teachers(self):
        """The rows of teachers."""
        return [row for row in self.rows if self.roles[row] == "teacher"]

    @property
    def students(self):
        """All other rows."""
        return [row for row in self.rows if self.roles[row] != "teacher"]

    @property
    def banner(self):
        """Says so where runs are missing; empty for a complete table."""
        return "" if self.finished == self.runs else f"PARTIAL: {self.finished} of {self.runs} runs"


def arrow(pair):
    """The name of a teacher-student pair, or of all pairs, as a heading."""
    return pair.replace("-", " → ")


def build_table(suite, index, metrics, scope, failures=None):
    """index, metrics: as in index.csv and metrics.csv; failures: {run: reason} of runs that failed."""
    failures, name = failures or {}, scope.headline
    values = shown(metrics, scope).reindex(columns=[name])[name].dropna().to_dict()
    order = sorted(index.itertuples(), key=lambda cell: ROLES.index(cell.role))
    roles, pairs = {c.row: c.role for c in order}, list(dict.fromkeys(index["pair"]))
    rows = list(roles)
    cells = {(row, pair): [c for c in order if (c.row, c.pair) == (row, pair)] for row in rows for pair in pairs}

    def by_seed(key, checkpoint):
        return {c.seed: values[c.run, checkpoint] for c in cells.get(key, ()) if (c.run, checkpoint) in values}

    entries, pooled = {}, {}
    for row in rows:
        control = next(c.control for c in order if c.row == row)
        for pair in pairs:
            mine = cells[row, pair]
            last = by_seed((row, pair), "last")
            failed = tuple(f"s{c.seed}: {failures[c.run]}" for c in mine if c.run in failures)
            difference = paired_difference(last, by_seed((control, pair), "last")) if control else None
            best = by_seed((row, pair), "best")
            entries[row, pair] = Entry(
                row, pair, len(mine), len(last) + len(failed), last, best, control, difference, failed
            )
    for row in rows:  # a row's control may stand below it
        control = entries[row, pairs[0]].control
        if control and len(pairs) > 1:
            pooled[row] = pooled_difference([(entries[row, p].last, entries[control, p].last) for p in pairs])
    finished = sum((run, "last") in values for run in set(index["run"]))
    return Table(suite, rows, pairs, roles, entries, pooled, index["run"].nunique(), finished, coverage(index), scope)


def coverage(index):
    """The sentence that says which variation a suite's deviations and intervals cover."""
    alone = list(dict.fromkeys(index[index["role"] == "student"]["row"]))
    taught, runs = set(index[index["role"] == "distilled"]["pair"]), index[index["role"] == "teacher"]
    matched = [pair for pair, made in runs.groupby("pair", sort=False)["run"] if pair in taught and made.nunique() > 1]
    single = [pair for pair in dict.fromkeys(index["pair"]) if pair in taught and pair not in matched]
    parts = []
    if matched:
        parts.append("seeds and teachers (one a seed)" + (f" in {', '.join(matched)}" if single else ""))
    if single:
        where = f" in {', '.join(single)}, which has" if matched else ", as each pair has"
        parts.append(f"seeds alone{where} one teacher")
    if matched and alone:
        parts.append(f"seeds alone in rows without a teacher ({', '.join(alone)})")
    return f"Deviations and intervals cover {'; '.join(parts) or 'seeds'}."

"""The suite's table: teacher and student alone first, then the methods, by pairs, with differences to controls."""

import io
import json
import textwrap
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple

import pandas as pd

from distillbench.reporting.statistics import (
    Interval,
    paired_difference,
    pooled_difference,
    standard_deviation,
)

METRIC = "top1"
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
    """A suite's results: entries by (row, pair), pooled differences by row."""

    suite: str
    rows: list
    pairs: list
    entries: dict
    pooled: dict
    runs: int
    finished: int
    coverage: str  # a sentence: which variation the deviations and intervals cover

    @property
    def banner(self):
        """Says so where runs are missing; empty for a complete table."""
        return "" if self.finished == self.runs else f"PARTIAL: {self.finished} of {self.runs} runs"


def build_table(suite, index, metrics, failures=None):
    """index, metrics: as in index.csv and metrics.csv; failures: {run: reason} of runs that failed."""
    failures = failures or {}
    values = metrics[metrics["metric"] == METRIC].set_index(["run", "checkpoint"])["value"].to_dict()
    order = sorted(index.itertuples(), key=lambda cell: ROLES.index(cell.role))
    rows, pairs = list(dict.fromkeys(c.row for c in order)), list(dict.fromkeys(index["pair"]))
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
    return Table(suite, rows, pairs, entries, pooled, index["run"].nunique(), finished, coverage(index))


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


def to_csv(table):
    """One line a row and pair, numbers in full; the pooled differences have the pair "all pairs"."""
    lines = []
    for (row, pair), entry in table.entries.items():
        last, best = list(entry.last.values()), list(entry.best.values())
        lines.append(
            {
                "row": row,
                "pair": pair,
                "metric": METRIC,
                "n": len(last),
                "attempted": entry.attempted,
                "planned": entry.planned,
                "last_mean": mean(last),
                "last_sd": standard_deviation(last),
                "best_mean": mean(best),
                "best_sd": standard_deviation(best),
                "control": entry.control,
                **_difference_columns(entry.difference),
                "failures": "; ".join(entry.failures),
            }
        )
    for row, difference in table.pooled.items():
        control = table.entries[row, table.pairs[0]].control
        line = {"row": row, "pair": POOLED, "metric": METRIC, "control": control}
        lines.append({**line, **_difference_columns(difference)})
    frame = pd.DataFrame(lines)
    counts = ["n", "attempted", "planned", "difference_n"]
    return frame.astype(dict.fromkeys(counts, "Int64")).to_csv(index=False, lineterminator="\n")


def _difference_columns(difference):
    return {f"difference_{name}": getattr(difference, name, None) for name in Interval._fields}


def mean(values):
    return sum(values) / len(values) if values else float("nan")


def to_json(table):
    """{row: {pair: top-1 mean, sd and n of the last epoch}}, numbers in full; the metrics that DVC compares."""
    content = {row: {} for row in table.rows}
    for (row, pair), entry in table.entries.items():
        last = list(entry.last.values())
        values = {"top1": mean(last), "sd": standard_deviation(last)}
        content[row][pair] = {name: None if isnan(v) else v for name, v in values.items()} | {"n": len(last)}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def grid(table):
    """(header, lines, footnotes) of the table as people read it: texts, the same for every format."""
    header = ["method"]
    for pair in table.pairs:
        header += [pair, "best", "difference to control"]
    pooled = len(table.pairs) > 1
    header += ["difference, all pairs"] if pooled else []
    lines, footnotes = [], []
    for row in table.rows:
        line = [row]
        for pair in table.pairs:
            entry = table.entries[row, pair]
            mark = ""
            if entry.failures:
                footnotes.append(f"{row}, {pair}, {'; '.join(entry.failures)}")
                mark = f" [{len(footnotes)}]"
            line += [
                _accuracy(entry) + mark,
                f"{mean(list(entry.best.values())):.2f}" if entry.best else "-",
            ]
            line.append(_difference(entry.difference, entry.control))
        line += [_difference(table.pooled.get(row), table.entries[row, table.pairs[0]].control)] if pooled else []
        lines.append(line)
    return header, lines, footnotes


def _accuracy(entry):
    values = list(entry.last.values())
    if not entry.attempted:
        return "-"
    if not values:
        return f"failed (0/{entry.attempted})"
    spread = f" ± {standard_deviation(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread} ({len(values)}/{entry.attempted})"


def _difference(difference, control):
    if difference is None or not difference.n:
        return ""
    text = f"{difference.mean:+.2f}"
    if difference.n > 1:
        text += f" [{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"{text} vs {control}"


def legend(table):
    """What the cells mean, in one paragraph."""
    return (
        "Top-1 accuracy in percent on the test split: mean ± standard deviation over runs (finished/attempted runs),"
        " one a seed, after the last epoch; best: mean of each run's best test epoch, which is optimistic. Differences"
        " are those of the last epoch, paired by seed, with 95 % t-intervals; over all pairs they are averaged within a"
        f" seed first. {table.coverage}"
    )


def to_markdown(table):
    return _document(table, *grid(table), legend(table))


def to_summary(table, width=100):
    """The table as the terminal and the README show it: accuracies, and the difference over all pairs."""
    header, lines, footnotes = grid(table)
    kept = [0, *range(1, 1 + 3 * len(table.pairs), 3), len(header) - 1]
    header, *lines = ([line[i] for i in kept] for line in (header, *lines))
    pooled = ", averaged over the pairs within a seed," if table.pooled else ""
    text = (
        "Top-1 accuracy in percent on the test split after the last epoch: mean ± standard deviation over runs"
        f" (finished/attempted runs), one a seed. Differences are paired by seed{pooled} with 95 % t-intervals."
        f" {table.coverage}"
    )
    return _document(table, header, lines, footnotes, textwrap.fill(text, width))


def _document(table, header, lines, footnotes, legend):
    """A page in Markdown."""
    text = io.StringIO()
    print(f"# Suite {table.suite}\n", file=text)
    if table.banner:
        print(f"**{table.banner}**\n", file=text)
    print(markdown(header, lines), file=text)
    print(f"\n{legend}", file=text)
    for number, note in enumerate(footnotes, 1):
        print(f"\n[{number}] failed: {note}", file=text)
    return text.getvalue()


def markdown(header, lines):
    """A table in Markdown, its columns aligned."""
    header, *lines = ([cell.replace("|", r"\|") for cell in line] for line in (header, *lines))
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    padded = (
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        for line in [header, ["-" * width for width in widths], *lines]
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def to_latex(table):
    """A booktabs table, complete with caption."""
    header, lines, footnotes = grid(table)
    spans = [f"\\multicolumn{{3}}{{c}}{{{tex(pair)}}}" for pair in table.pairs]
    names = ["method", *["last", "best", "difference"] * len(table.pairs)]
    if len(header) > len(names):
        spans.append("all pairs")
        names.append("difference")
    caption = " ".join(filter(None, [table.banner, f"Suite {table.suite}.", legend(table)]))
    notes = "".join(f" [{i}] failed: {note}." for i, note in enumerate(footnotes, 1))
    body = "\n".join("  " + "{} " + " & ".join(map(tex, line)) + r" \\" for line in lines)
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n"
        f"\\begin{{tabular}}{{{'l' * len(header)}}}\n  \\toprule\n"
        f"  & {' & '.join(spans)} \\\\\n  {' & '.join(names)} \\\\\n  \\midrule\n{body}\n  \\bottomrule\n"
        f"\\end{{tabular}}\n\\caption{{{tex(caption + notes)}}}\n\\end{{table}}\n"
    )


def tex(text):
    for plain, escaped in (
        ("\\", r"\textbackslash "),
        *((c, "\\" + c) for c in "&%$#_{}"),
        ("±", r"$\pm$"),
        ("~", r"\~{}"),
        ("^", r"\^{}"),
    ):
        text = text.replace(plain, escaped)
    return text


FORMATS = {"csv": to_csv, "json": to_json, "md": to_markdown, "tex": to_latex}

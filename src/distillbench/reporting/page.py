"""The report page: one HTML file that opens offline, with everything that a suite's numbers rest on."""

import base64
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from distillbench.command_lines import command, workflow
from distillbench.reporting.evidence import NO_REFERENCE, figure_files, gather, other_tables, references
from distillbench.reporting.tables import grid, legend
from distillbench.store.record import processor_text

INTERVAL = re.compile(r"\[([+-])(\d+\.\d+), \1(\d+\.\d+)\]")  # both ends on one side of zero
NUMBER = re.compile(r"([+-]?[\d.]+|-|)$")


class Sheet(NamedTuple):
    """A table as the page shows it: texts. `header` is [(group, [column, ...])], the group "" for a lone column."""

    name: str
    title: str
    header: list
    lines: list
    legend: str = ""
    footnotes: tuple = ()

    @property
    def columns(self):
        return [column for _, columns in self.header for column in columns]

    @property
    def numeric(self):
        """For each column, whether its cells are bare numbers."""
        return [
            any(line[i] for line in self.lines) and all(NUMBER.match(line[i]) for line in self.lines)
            for i in range(len(self.columns))
        ]

    @property
    def starts(self):
        """For each column, whether a group begins there."""
        return [bool(group) and i == 0 for group, columns in self.header for i in range(len(columns))]

    @property
    def marked(self):
        return any(mark(cell) for line in self.lines for cell in line)


def mark(cell):
    """A sign for a difference whose interval excludes zero, by its direction; "" for any other cell."""
    found = INTERVAL.search(cell)
    if not found or not (float(found[2]) or float(found[3])):
        return ""
    return "▲" if found[1] == "+" else "▼"


def pieces(cell):
    """The parts of a cell between which a line may break."""
    return re.split(r" (?=\[|vs )|(?<=,) (?![^\[]*\])", cell)


def main_sheet(table):
    header, lines, footnotes = grid(table)
    groups = []
    for name in header:
        if name in table.pairs:
            groups.append((name.replace("-", " → "), ["last epoch"]))
        elif groups and groups[-1][0] and "all pairs" not in name:
            groups[-1][1].append(name)
        else:
            groups.append(("", [name]))
    notes = tuple(f"[{number}] failed: {note}" for number, note in enumerate(footnotes, 1))
    return Sheet("main", "Accuracy", groups, lines, legend(table), notes)


def read_markdown(path):
    """The sheet in a Markdown file that a table's writer left: title, one table, text below it."""
    title, lines, text = path.stem, [], []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("# "):
            title = line[2:]
        elif line.startswith("|"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not all(set(cell) <= set(":- ") and cell for cell in cells):
                lines.append(cells)
        elif lines and line:
            text.append(line)
    if not lines:
        return None
    header, *body = lines
    body = [(line + [""] * len(header))[: len(header)] for line in body]
    notes = tuple(line for line in text if line.startswith("["))
    return Sheet(
        path.stem, title, [("", [n]) for n in header], body, " ".join(t for t in text if t not in notes), notes
    )


def runs_sheet(runs):
    """Every run, with where it stands and what it took."""
    columns = ["row", "pair", "seed", "run", "top-1 last", "top-1 best", "epochs", "time", "images/s", "device"]
    lines = []
    for run in runs:
        record, (state, detail) = run.record, run.state
        accuracy = [f"{run.accuracy[c]:.2f}" if c in run.accuracy else "-" for c in ("last", "best")]
        if not record and not run.accuracy:
            accuracy[0] = f"{state}: {detail}" if detail else state
        elif state == "damaged":
            accuracy[0] += f" ({state}: {detail})"
        work = (
            [duration(record["seconds"]), _rate(record["images_per_second"]), record["device"]]
            if record
            else ["-", "-", "no record"]
        )
        epochs = str(run.specification["schedule"]["EPOCHS"])
        lines.append([", ".join(run.rows), ", ".join(run.pairs), str(run.seed), run.id, *accuracy, epochs, *work])
    note = "A run that stands in several cells is listed once. `distillbench show RUN` prints all that is known of it."
    return Sheet("runs", f"All {len(runs)} runs", [("", [name]) for name in columns], lines, note)


def _rate(images_per_second):
    return f"{images_per_second:.0f}" if images_per_second else "-"


def duration(seconds):
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def provenance(runs):
    """[(what, [values])]: every distinct value, with the number of runs where there are several."""
    records = [run.record for run in runs if run.record]

    def distinct(values):
        counts = Counter(values)
        if len(counts) == 1:
            return list(counts)
        return [f"{value} ({count} run{'s' * (count > 1)})" for value, count in sorted(counts.items())]

    facts = [("runs", [f"{len(records)} with a record, of {len(runs)}"])]
    facts.append(("commit", distinct(_commit(record) for record in records)))
    for package in dict.fromkeys(name for record in records for name in record["versions"]):
        facts.append((package, distinct(str(record["versions"].get(package, "unknown")) for record in records)))
    facts.append(("device", distinct(f"{r['device']}, threads: {r['threads']}" for r in records)))
    facts.append(("processor", distinct(map(processor_text, records))))
    facts.append(("platform", distinct(record["platform"] for record in records)))
    dates = sorted(record["finished"] for record in records)
    facts.append(("finished", [f"{dates[0]} to {dates[-1]}"] if dates else []))
    facts.append(("time of all runs", [duration(sum(record["seconds"] for record in records))]))
    datasets = [run.specification["dataset"] for run in runs]
    facts.append(("dataset", distinct(f"{d['name']}, version {d['version']}, sha256 {d['sha256']}" for d in datasets)))
    return [(what, values or ["unknown"]) for what, values in facts]


def _commit(record):
    if not record["commit"]:
        return "not made in a git checkout"
    changed = ", ".join(record["modified"])
    return (
        f"{record['commit']}, with changes that are not in it: {changed}" if changed else f"{record['commit']}, clean"
    )


def commands(suite, runs):
    """The lines that make these numbers again, from the commit of the latest run."""
    latest = max((run.record for run in runs if run.record), key=lambda record: record["finished"], default={})
    commit = latest.get("commit")
    return [
        *([f"git checkout {commit}  # of the run that finished last; see Provenance"] if commit else []),
        "make env && . .venv/bin/activate",
        workflow(suite),
        command("tables", suite),
        *(command("explain", suite, f"{run.rows[-1]}/{run.pairs[0]}") for run in runs[-1:]),
        *([command("show", latest["run"])] if latest else []),
    ]


def _embedded(png):
    """(base64 text, width, height) of a PNG; sizes as on paper and half as large again, at 200 dots per inch."""
    width, height = (int.from_bytes(png[place : place + 4]) for place in (16, 20))
    return base64.b64encode(png).decode(), round(0.72 * width), round(0.72 * height)


def render_page(table, index, store, folder, partial=False):
    """The page's text. folder: where the suite's tables/ and figures/ lie; the bytes depend on the files alone."""
    folder, runs = Path(folder), gather(index, store)
    sheets = [main_sheet(table), *filter(None, map(read_markdown, other_tables(folder, "md", partial)))]
    figures = [
        (name, caption, *_embedded(path.with_suffix(".png").read_bytes()))
        for name, caption, path in figure_files(table, folder / "figures", index, runs, partial)
    ]
    params = store.results.parent / "params" / f"{table.suite}.yaml"
    found = {what: entry or NO_REFERENCE for run in runs for what, entry in references(run.specification).items()}
    roles = dict(zip(index["row"], index["role"], strict=True))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(
        suite=table.suite,
        banner=table.banner,
        sheets=sheets,
        figures=figures,
        provenance=provenance(runs),
        commands=commands(table.suite, runs),
        runs=runs_sheet(runs),
        references=sorted(found.items(), key=lambda item: item[0].startswith("dataset")),
        params=params.read_text(encoding="utf-8", errors="replace") if params.exists() else "",
        role=lambda line: roles.get(line[0].split(", ")[0], ""),
        mark=mark,
        pieces=pieces,
    )

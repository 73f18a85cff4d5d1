"""The report page: one HTML file that opens offline, with everything that a suite's numbers rest on."""

import base64
from collections import Counter
from dataclasses import replace
from pathlib import Path

from distillbench.command_lines import command, workflow
from distillbench.config.kinds import DIGESTS
from distillbench.config.suite_file import read_suite
from distillbench.errors import UserError
from distillbench.reporting.evidence import NO_REFERENCE, figure_files, gather, references
from distillbench.reporting.render import html
from distillbench.reporting.sheets.runs import duration, runs_sheet
from distillbench.store.record import processor_text

PAGE = Path(__file__).with_name("page.html")


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
    facts.append(("dataset", distinct(map(_dataset, datasets))))
    return [(what, values or ["unknown"]) for what, values in facts]


def _dataset(stated):
    digests = (f"{name} {stated[name]}" for name in DIGESTS if name in stated)
    return ", ".join([stated["name"], f"version {stated['version']}", *digests])


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


def params(suite, root):
    """{name: text} of a suite's file and of those that it includes, its own first, as far as they can be read."""
    try:
        names = reversed(read_suite(suite, root).files)
    except UserError:  # edited since; the page is of what is collected
        names = [f"params/{suite}.yaml"]
    return {name: (root / name).read_text("utf-8", "replace") for name in names if (root / name).is_file()}


def render_page(results, folder, partial=False):
    """The text of the page of `results.Results`. folder: the suite's, with figures/; the bytes depend on both alone."""
    table, runs = results.table, gather(results)
    figures = [
        (name, caption, *_embedded(path.with_suffix(".png").read_bytes()))
        for name, caption, path in figure_files(results, folder, runs, partial)
    ]
    found = {what: entry or NO_REFERENCE for run in runs for what, entry in references(run.specification).items()}
    return html.ENVIRONMENT.from_string(PAGE.read_text(encoding="utf-8")).render(
        suite=table.suite,
        banner=table.banner,
        tables=[html.render(replace(results.main, title="Accuracy")), html.render(results.details)],
        figures=figures,
        provenance=provenance(runs),
        commands=commands(table.suite, runs),
        count=len(runs),
        runs=html.render(runs_sheet(table.suite, runs, table.scope)),
        references=sorted(found.items(), key=lambda item: item[0].startswith("dataset")),
        params=params(table.suite, results.store.results.parent),
    )

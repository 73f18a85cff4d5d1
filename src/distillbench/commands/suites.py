"""Commands on a suite as a whole: what is planned, how far it is, what its runs show."""

import sys

import click

from distillbench.commands.base import command
from distillbench.commands.types import CellName, Folder, SuiteName, argument, only, option, suite
from distillbench.errors import UserError

partial = click.option(
    "--partial", is_flag=True, help="from the runs that are there, marked as partial (printing always is)"
)


@command("plan")
@suite
@only
@click.option(
    "--table",
    type=click.Choice(["auto", "always", "never"]),
    metavar="MODE",
    help="tables of teachers' logits: auto, where they save work (default), always or never",
)
@click.option("--resolved", is_flag=True, help="print the suite instead, as one file with all that it includes")
def plan(suite, only, table, resolved):
    """Say which runs of a suite are done and which would be trained.

    And which teachers would get a table of their logits. Specifications are written to results/specs.
    """
    if resolved:
        return _print_resolved(suite, only, table)
    from distillbench.loggers import require_imports
    from distillbench.planning import plan_where_possible
    from distillbench.planning.tables import plan_tables, summary
    from distillbench.store import LookingStore

    part, unwritten = plan_where_possible(suite, only)
    store = LookingStore(planned=part.runs)
    states = {run: store.state(run) for run in part.runs}
    rows = {}
    for cell in part.cells:
        rows.setdefault(cell.specification.id, []).append(cell.name)
    width = max(map(len, rows), default=0)
    for run, names in rows.items():
        state, detail = states[run]
        print(f"{state:8} {run:{width}}  {', '.join(names)}{f'  ({detail})' if detail else ''}")
    todo = store.untrained(part.runs)
    print(f"\n{len(rows)} runs, {len(rows) - len(todo)} trained, {len(todo)} to train")
    if len(part.teachers) > (fixed := len(set(part.teachers.values()))):
        new = len(part.teachers.keys() & todo)
        print(f"{len(part.teachers)} of them teachers, {new} to train (teacher_seed: matched); with fixed {fixed}")
    for line in summary(plan_tables(part, store, table or "auto"), store):
        print(line)
    for note in dict.fromkeys([*part.notes, *(f"{cell.row}: {note}" for cell in part.cells for note in cell.notes)]):
        print(f"note: {note}")
    if unwritten:
        print(f"note: specifications are not written ({unwritten})")
    try:
        require_imports(part.loggers(*todo))
    except UserError as error:
        print(f"note: {error}")
    return store.told


def _print_resolved(suite, only, table):
    from distillbench.config.suite import load_suite
    from distillbench.config.suite_file import read_suite
    from distillbench.config.yaml_file import as_yaml

    for name, value in {"--only": only, "--table": table}.items():
        if value is not None:
            raise UserError(f"--resolved: prints a suite as it is written; leave out {name}")
    *included, own = load_suite(suite).files
    print(f"# {own}{' with ' if included else ''}{', '.join(included)}")
    print(as_yaml(read_suite(suite).content), end="")


@command("status")
@suite
def status(suite):
    """Say how far a suite is: counts, running epochs, failures and their reasons."""
    from distillbench.planning import plan_suite
    from distillbench.planning.tables import states as states_of_tables
    from distillbench.store import LookingStore

    planned = plan_suite(suite, write=False)
    runs = planned.runs
    store = LookingStore(planned=runs)
    states = {run: store.state(run) for run in runs}
    counts = {}
    for state, _ in states.values():
        counts[state] = counts.get(state, 0) + 1
    print(f"suite {suite}: {counts.get('done', 0)} of {len(runs)} runs done")
    print("  " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    for run, (state, detail) in states.items():
        if detail:
            print(f"  {state:8} {run}: {detail}")
    for (run, checkpoint), (state, detail) in states_of_tables(planned, store).items():
        print(f"  table    {run} ({checkpoint}) {state}: {detail}")
    for run in runs:
        if states[run][0] in ("done", "stale", "trained"):
            for warning in store.warnings(run):
                print(f"  warning: {warning}")
    return store.told


@command("tables")
@suite
@option("--out", Folder("folder for main.csv, main.md, ..., details.csv, ..."))
@partial
def tables(suite, out, partial):
    """Print a suite's table, or write its tables as CSV, Markdown, LaTeX and JSON.

    Printed is what there is from the runs that are there. Complete tables are read from results/suites/SUITE, as the
    workflow collected it.
    """
    from distillbench.reporting.write import summary, write_tables

    if out is not None:
        return write_tables(suite, out, partial, _tell)
    text, problems = summary(suite, _tell)
    print(text)
    return problems


@command("figures")
@suite
@option("--out", Folder("folder for accuracy.pdf, accuracy.png, ... (default: reports/SUITE/figures)"))
@partial
def figures(suite, out, partial):
    """Draw a suite's figures as PDF and PNG.

    docs/reading.md says how to read each.
    """
    from distillbench.reporting.write import write_figures

    return write_figures(suite, out, partial, _tell)


@command("report")
@suite
@option("--out", Folder("folder for index.html and paper/ (default: reports/SUITE)"))
@partial
def report(suite, out, partial):
    """Write a suite's page index.html and its folder paper/ for LaTeX.

    The page needs no other file, the folder is to \\input into a document. They show the tables and figures of
    reports/SUITE. With --partial: partial.html and partial-paper/, which the next complete report removes.
    """
    from distillbench.reporting.write import write_report

    return write_report(suite, out, partial, _tell)


@command("explain")
@argument("suite", SuiteName())
@argument("cell", CellName(), nargs=-1, required=True)
def explain(suite, cell):
    """Go from a cell of a suite's table to its runs, files, commands and control."""
    from distillbench.reporting.explain import explain as explain_cell

    text, problems = explain_cell(suite, " ".join(cell))
    print(text, end="")
    return problems


@command("collect")
@suite
@option("--out", Folder("folder for metrics.csv and costs.csv"), required=True)
def collect(suite, out):
    """Gather metrics and costs of a suite's runs (a rule of the workflow).

    Metrics are in long form; all runs have to be evaluated.
    """
    from distillbench.reporting.write import write_collected

    write_collected(suite, out, _tell)


def _tell(line):
    print(line, file=sys.stderr)


COMMANDS = (plan, status, tables, figures, report, explain, collect)

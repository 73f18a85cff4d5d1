"""Commands that pass runs on, record them, or clean up behind them."""

import shlex
import sys
from pathlib import Path

import click

from distillbench.commands.base import command
from distillbench.commands.types import File, argument, only, option, suite
from distillbench.errors import UserError


@command("export")
@suite
@only
@click.option("--predictions", is_flag=True, help="without weights (model.*.pt)")
@option("--out", File("FILE.tar, or FILE.tar.gz to compress"), required=True)
def export(suite, only, predictions, out):
    """Pack a suite's finished runs into one archive.

    With their evaluations and a manifest of digests.
    """
    from distillbench.planning import plan_suite
    from distillbench.store import Store
    from distillbench.store.archive import export_suite

    part = plan_suite(suite, only, write=False)
    runs, notes = export_suite(part, Store(), out, weights=not predictions)
    for note in notes:
        print(f"note: {note}")
    print(f"{out}: {len(runs)} of {len(part.runs)} runs, {_megabytes(Path(out).stat().st_size)}")


@command("import")
@argument("file", File("what `distillbench export` wrote"))
def import_(file):
    """Put the runs of an archive into results/runs.

    All of it is verified first; nothing that is here is changed. Exit code 1 where a run is here with other weights or
    predictions: it stays as it is.
    """
    from distillbench.files import sha256_of
    from distillbench.store import Store
    from distillbench.store.importing import import_archive, teacher_warnings

    store = Store()
    manifest, outcomes = import_archive(file, store)
    for run, state, detail in outcomes:
        older = f"  (older code: {text})" if state != "refused" and (text := store.older(run)) else ""
        print(f"{state:12} {run}{f': {detail}' if detail else ''}{older}")
    warnings = teacher_warnings({run for run, _, _ in outcomes}, store)
    for warning in warnings:
        print(f"warning: {warning}")
    for name in sorted(name for name in manifest["files"] if name.startswith("params/")):
        if not Path(name).exists() or sha256_of(name) != manifest["files"][name]["sha256"]:
            look = shlex.join(["tar", "-xOf", file, name])
            print(f"note: {name} is {'another' if Path(name).exists() else 'not'} here; `{look}` shows it")
    return int(bool(warnings) or any(state == "refused" for _, state, _ in outcomes))


@command("gc")
@click.option("--delete", is_flag=True, help="delete it, after a question")
@click.option("--yes", is_flag=True, help="ask no question")
def gc(delete, yes):
    """List what lies in results/ for no suite of any git reference and no pin, or delete it.

    Pins are the lines of params/pins.txt.
    """
    from distillbench.store import Store
    from distillbench.store.gc import find_unused

    store = Store()
    found = find_unused(store)
    for item in found.items:
        print(f"{_megabytes(item.size):>10}  {item.run}  ({', '.join(item.parts)})")
    total = f"{len(found.items)} runs, {_megabytes(sum(item.size for item in found.items))}"
    print(f"{total} that belong to no pin and to no suite {found.scope}")
    for problem in found.problems:
        print(f"problem: {problem}", file=sys.stderr)
    if not delete or (not found.items and not found.problems):
        return
    if found.problems:
        raise UserError("nothing is deleted while not every reference and pin is known")
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nothing is deleted without a question; not a terminal, so add --yes")
        if input(f"delete {total}? [y/N] ").strip().lower() not in ("y", "yes"):
            return
        now = find_unused(store)  # the question may have stood for hours
        if now.problems:
            raise UserError(f"nothing is deleted: {now.problems[0]}")
        still = {item.run for item in now.items}
    deleted = [item.delete(store) for item in found.items if yes or item.run in still]
    print(f"{sum(deleted)} of {len(found.items)} deleted")


@command("record")
def record():
    """Record the runs that are here in results/runs.dvc (the end of a DVC stage).

    Those that it names already stay.
    """
    from distillbench.store.dvc import record_runs

    if notice := record_runs():
        print(f"note: {notice}", file=sys.stderr)


def _megabytes(size):
    return f"{size / 1e6:.1f} MB"


COMMANDS = (export, import_, gc, record)

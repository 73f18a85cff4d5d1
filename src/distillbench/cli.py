"""The command line. The workflow's rules and people use the same commands; heavy imports happen inside."""

import argparse
import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from distillbench import __version__
from distillbench.environment import as_text, prepare
from distillbench.errors import RunFailed, UserError

EPILOG = """\
a suite is a file params/SUITE.yaml; a run is named by its directory, its id or a unique beginning of either
or of its hash. Typical use:

  distillbench plan demo                 what would be trained, and why
  snakemake --profile profiles/local     do it (suite demo; --config suite=NAME for another)
  distillbench status demo               how far it is
  distillbench tables demo               the table, as far as it goes
"""


def parser():
    top = argparse.ArgumentParser(
        prog="distillbench",
        description="A reproducible benchmark pipeline for knowledge distillation.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"distillbench {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(function, help, *arguments):
        sub = commands.add_parser(function.__name__.rstrip("_"), help=help, description=f"{function.__doc__ or help}")
        for names, options in arguments:
            sub.add_argument(*names, **options)
        sub.set_defaults(function=function)

    suite = (
        ["suite"],
        {"nargs": "?", "default": "demo", "help": "name of a file params/SUITE.yaml (default: demo)"},
    )
    only = (
        ["--only"],
        {
            "type": as_text,
            "metavar": "PATTERNS",
            "help": "a part: ROW, ROW/PAIR or ROW/PAIR/sSEED, comma-separated, * and ? allowed",
        },
    )
    run = (["run"], {"help": "directory, id or a unique beginning of the id or hash of a run"})
    device = (
        ["--device"],
        {"default": "auto", "help": "cpu, cuda, cuda:1, ...; auto takes CUDA if there is one (default)"},
    )
    command(plan, "say which runs of a suite are done and which would be trained", suite, only)
    command(
        train,
        "train one run, teacher or student, from its specification",
        (["--spec"], {"required": True, "help": "specification file; `plan` writes them to results/specs/"}),
        (["--out"], {"required": True, "help": "directory of the finished run"}),
        (["--work"], {"help": "directory of the state in flight (default: OUT.work)"}),
        device,
        (
            ["--save-seconds"],
            {"type": float, "default": 30.0, "help": "save the state this often (default: 30)"},
        ),
        (
            ["--log"],
            {"nargs": "+", "choices": ("tensorboard", "wandb"), "default": [], "help": "log each epoch there, too"},
        ),
        (
            ["--again"],
            {"action": "store_true", "help": "also where the run is finished; it stays until the new one is complete"},
        ),
    )
    command(
        evaluate,
        "write predictions and metrics of a finished run",
        run,
        (
            ["--stage"],
            {
                "choices": ("predictions", "metrics", "both"),
                "default": "both",
                "help": "what to make (default: both)",
            },
        ),
        device,
    )
    command(
        tables,
        "print a suite's table, or write its tables as CSV, Markdown, LaTeX and JSON",
        suite,
        _out("folder for main.csv, main.md, ..., details.csv, ..."),
        _partial(),
    )
    command(
        figures,
        "draw a suite's figures as PDF and PNG",
        suite,
        _out("folder for accuracy.pdf, accuracy.png, ... (default: reports/SUITE/figures)"),
        _partial(),
    )
    command(
        report,
        "write a suite's page index.html and its folder paper/ for LaTeX",
        suite,
        _out("folder for index.html and paper/ (default: reports/SUITE)"),
        _partial(),
    )
    command(status, "how far a suite is: counts, running epochs, failures and their reasons", suite)
    command(ls, "list the runs in results/runs")
    command(show, "show a run's specification, record and metrics", run)
    command(diff, "show where two runs' specifications differ", run, (["other"], {"help": "the other run"}))
    command(
        explain,
        "from a cell of a suite's table to its runs, files, commands and control",
        (["suite"], {"help": "name of a file params/SUITE.yaml"}),
        (
            ["cell"],
            {
                "nargs": "+",
                "type": as_text,
                "metavar": "CELL",
                "help": "ROW/PAIR or ROW/PAIR/sSEED; ROW where there is one pair",
            },
        ),
    )
    command(
        export,
        "pack a suite's finished runs into one archive",
        suite,
        only,
        (["--predictions"], {"action": "store_true", "help": "without weights (model.*.pt)"}),
        (["--out"], {"required": True, "metavar": "FILE", "help": "FILE.tar, or FILE.tar.gz to compress"}),
    )
    command(
        import_,
        "put the runs of an archive into results/runs",
        (["file"], {"metavar": "FILE", "help": "what `distillbench export` wrote"}),
    )
    command(
        gc,
        "list what lies in results/ for no suite of any git reference and no pin, or delete it",
        (["--delete"], {"action": "store_true", "help": "delete it, after a question"}),
        (["--yes"], {"action": "store_true", "help": "ask no question"}),
    )
    command(
        parity,
        "compare this code with reference vectors of the official code, file by file",
        (["folder"], {"help": "folder in the format of the reference vectors"}),
    )
    command(
        check,
        "try the rules that every method keeps on a method in a file of your own",
        (["file"], {"help": "Python file with one class that has `name` and `version`"}),
    )
    command(
        collect,
        "gather metrics and costs of a suite's runs (a rule of the workflow)",
        suite,
        _out("folder for metrics.csv and costs.csv", required=True),
    )
    command(record, "record the runs that are here in results/runs.dvc (the end of a DVC stage)")
    command(
        data,
        "make a dataset's file results/data/NAME.npz",
        (["name"], {"help": "name of the dataset"}),
        _out("file to write (default: results/data/NAME.npz)"),
    )
    return top


def _out(help, required=False):
    return ["--out"], {"metavar": "PATH", "help": help, "required": required}


def _partial():
    return ["--partial"], {
        "action": "store_true",
        "help": "from the runs that are there, marked as partial (printing always is)",
    }


def megabytes(size):
    return f"{size / 1e6:.1f} MB"


def main(arguments=None):
    """Run a command; returns the exit code: 2 for bad input, 1 for a run that failed.

    A command that goes on past damaged runs returns the lines on them: they come last, with code 2.
    """
    prepare()
    options = vars(parser().parse_args(arguments))
    function = options.pop("function")
    try:
        for name, value in options.items():
            if value == "" or (isinstance(value, list) and "" in value):
                raise UserError(f"{name}: is empty; perhaps a variable of the shell is not set")
        result = function(**options)
        sys.stdout.flush()
        return _tell(result) if isinstance(result, list) else result or 0
    except UserError as error:
        print(f"distillbench: {error}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"distillbench: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _discard_output()
        return 0
    except OSError as error:  # a path that is a directory, or below a file; a full disk
        print(f"distillbench: {error}", file=sys.stderr)
        _discard_output()
        return 2
    except KeyboardInterrupt:
        return 130


def _discard_output():
    """Python writes what stdout still holds once more when it ends, and complains where that cannot be written."""
    with suppress(OSError, ValueError):  # a stand-in without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(problems):
    """Print the lines on what was damaged among things that were not; the exit code."""
    for line in dict.fromkeys(problems):
        print(f"distillbench: {line}", file=sys.stderr)
    return 2 if problems else 0


def plan(suite, only):
    """Say which runs of a suite are done and which would be trained, and write their specifications."""
    from distillbench.loggers import require_imports
    from distillbench.planning import plan_where_possible
    from distillbench.store import LookingStore, finished

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
    todo = sum(not finished(store.run(run)) and states[run][0] not in ("done", "stale", "trained") for run in states)
    print(f"\n{len(rows)} runs, {len(rows) - todo} trained, {todo} to train")
    for note in dict.fromkeys([*part.notes, *(f"{cell.row}: {note}" for cell in part.cells for note in cell.notes)]):
        print(f"note: {note}")
    if unwritten:
        print(f"note: specifications are not written ({unwritten})")
    try:
        require_imports(part.loggers(*store.untrained(part.runs)))
    except UserError as error:
        print(f"note: {error}")
    return store.told


def train(spec, out, work, device, save_seconds, log, again):
    """Train one run from its specification; interrupted, the same command goes on where it stopped."""
    from distillbench.claim import claim
    from distillbench.config import method_files
    from distillbench.config.implemented import require_file
    from distillbench.config.specification import read_specification
    from distillbench.files import read_json
    from distillbench.loggers import open_loggers, require
    from distillbench.store import Store, require_own, require_work

    specification, source = read_specification(spec), read_json(spec).get("source")
    require_file(spec)
    work, store, name = work or f"{out.rstrip('/')}.work", Store(), specification["dataset"]["name"]
    if os.path.abspath(out) != os.path.abspath(store.run(specification.id)):
        require_own(out, specification, work)
    require_work(work)
    with claim(work, report=_say):  # now: whatever fails from here on leaves its reason
        print(f"{specification.id} -> {out}", flush=True)
        from distillbench import data as datasets
        from distillbench.engine.run import train as train_run

        if source and source.get("method_file"):
            method_files.use([source["method_file"]])
            source = {**source, "method_source": Path(source["method_file"]).read_text(encoding="utf-8")}
        require(log)
        train_run(
            specification,
            datasets.load(name, datasets.data_path(name)),
            out,
            work=work,
            runs=store.runs,
            device=device,
            save_seconds=save_seconds,
            source=source,
            report=_say,
            logger=lambda: open_loggers(log, specification, store.results / "logs"),
            again=again,
        )


def _say(line):
    print(line, flush=True)


def evaluate(run, stage, device):
    """Write predictions.npz and metrics.json of a finished run, for its last and its best epoch.

    Predictions that are here are kept unless they are stale or --stage predictions asks for them.
    """
    from distillbench import data as datasets
    from distillbench.claim import claim
    from distillbench.evaluation import CHECKPOINTS
    from distillbench.store import Store

    store = Store()
    run_id = store.find(run)
    with claim(store.work(run_id)):
        if stage == "predictions":
            missing = CHECKPOINTS
        else:
            stale = store.stale(run_id)
            missing = [c for c in CHECKPOINTS if not store.predicted(run_id, c) or ("predictions.npz", c) in stale]
        if missing and stage != "metrics":
            from distillbench.evaluation.predictions import predict

            name = store.specification(run_id)["dataset"]["name"]
            images = datasets.load(name, datasets.data_path(name))
            for checkpoint in missing:
                predict(store.run(run_id), checkpoint, images, device)
        if stage != "predictions":
            from distillbench.evaluation.metrics import write_metrics

            for checkpoint in CHECKPOINTS:
                values = write_metrics(store, run_id, checkpoint)["metrics"]
                print(f"{run_id} {checkpoint}: " + ", ".join(f"{v['metric']} {v['value']:.4g}" for v in values))


def tables(suite, out, partial):
    """Print a summary of a suite's table from the runs that are there, or write its tables to a folder (--out).

    Complete tables are read from results/suites/SUITE, as the workflow collected it.
    """
    from distillbench.files import write_atomically
    from distillbench.output import output
    from distillbench.reporting.render import files, markdown
    from distillbench.reporting.results import read_results

    results = read_results(suite, partial or out is None)
    if partial or out is None:
        _warn(results.index, results.store)
    if out is None:
        print(markdown.render(results.summary))
        print(f"Files: reports/{suite}/ (page, tables, figures, paper), results/runs/ (runs), results/suites/{suite}/")
        return results.problems
    prefix = "partial-" if partial else ""
    with output(out, f"tables {suite}", f"reports/{suite}/tables", partial) as folder:
        for name, text in files((results.main, results.details)).items():
            write_atomically(folder / f"{prefix}{name}", text)
    return results.problems


def figures(suite, out, partial):
    """Draw a suite's figures as PDF and PNG; docs/reading.md says how to read each."""
    from distillbench.output import output
    from distillbench.planning import plan_suite
    from distillbench.reporting.figures import FIGURES
    from distillbench.reporting.figures.style import save
    from distillbench.reporting.index import figure_names
    from distillbench.reporting.results import read_results

    results, prefix = read_results(suite, partial), "partial-" if partial else ""
    default, boxes = f"reports/{suite}/figures", set()
    with output(out or default, f"figures {suite}", default, partial) as folder:
        for name in figure_names(plan_suite(suite, write=False)):
            for ending in ("pdf", "png"):
                boxes |= save(FIGURES[name](results), folder / f"{prefix}{name}.{ending}")
    if boxes:
        characters = "".join(sorted(boxes))
        print(f"note: boxes in the figures, as no font here has {characters}; install one, say Noto", file=sys.stderr)
    return results.problems


def report(suite, out, partial):
    """Write index.html, a page that needs no other file, and paper/, to \\input into a LaTeX document.

    They show the tables and figures of reports/SUITE. With --partial: partial.html and partial-paper/, which the next
    complete report removes.
    """
    from distillbench.config.suite import load_suite
    from distillbench.files import write_atomically
    from distillbench.output import output
    from distillbench.reporting.page import render_page
    from distillbench.reporting.paper import write_paper
    from distillbench.reporting.results import read_results

    load_suite(suite)  # for the references in a user's own method files
    results, shown, problems = read_results(suite, partial), f"reports/{suite}", []
    if partial:
        problems = tables(suite, f"{shown}/tables", partial) + figures(suite, None, partial)
    with output(out or shown, f"report {suite}", shown, partial) as folder:
        page = render_page(results, shown, partial)
        write_atomically(folder / ("partial.html" if partial else "index.html"), page)
        paper = folder / ("partial-paper" if partial else "paper")
        write_paper(results, shown, paper, partial)
    return problems + results.problems


def collect(suite, out):
    """Write the long-form metrics of all runs of a suite, and what each run took; all of them have to be evaluated."""
    from distillbench.config.suite import require_suite
    from distillbench.files import write_atomically
    from distillbench.output import output
    from distillbench.reporting import collect
    from distillbench.reporting.index import index_path
    from distillbench.store import Store

    require_suite(suite)
    store = Store()
    index = collect.read_index(index_path(suite))
    _warn(index, store)
    frames = collect.collect(index, store)
    collect.require_complete(suite, index, frames[0])
    with output(out, f"collect {suite}", index_path(suite).parent) as folder:
        for path, frame in zip(collect.files(folder), frames, strict=True):
            write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def _warn(index, store):
    """Say of what is collected where its parts do not belong together, or are not what this code would make."""
    for run in dict.fromkeys(index["run"]):
        state, detail = store.state(run)
        stale = [f"{run}: stale: {detail}"] if state == "stale" else []
        for line in stale + store.warnings(run):
            print(f"warning: {line}", file=sys.stderr)


def status(suite):
    """How far a suite is: runs by state, what runs now, what failed and why."""
    from distillbench.planning import plan_suite
    from distillbench.store import LookingStore

    runs = plan_suite(suite, write=False).runs
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
    for run in runs:
        if states[run][0] in ("done", "stale", "trained"):
            for warning in store.warnings(run):
                print(f"  warning: {warning}")
    return store.told


def ls():
    """List the runs in results/runs with their last-epoch accuracy, or with what keeps them from having one."""
    from distillbench.store import LookingStore

    store = LookingStore()
    for run in store.ids():
        entries = {entry["metric"]: entry["value"] for entry in store.metrics(run, "last") or ()}
        state, detail = store.state(run)
        facts = [f"{entries['top1']:.2f}"] if "top1" in entries else [state]
        if state in ("damaged", "in part", "stale"):
            facts = [*(facts if "top1" in entries else ()), f"{state}: {detail}"]
        if older := store.older(run):
            facts.append(f"(older code: {older})")
        print("  ".join([run, *facts]))
    return store.told


def show(run):
    """Show everything that is known of a run, as far as it is here."""
    from distillbench.files import to_json
    from distillbench.store import LookingStore

    store = LookingStore()
    run_id = store.find(run)
    state, detail = store.state(run_id)
    if state == "in part":
        print(f"{state}: {detail}")
    elif specification := store.attempt(run_id, lambda: store.specification(run_id)):
        print(to_json(specification.as_file()), end="")
    if older := store.older(run_id):
        print(f"older code: {older}")
    if record := store.record(run_id):
        print(to_json({"record": record}), end="")
    for checkpoint in ("last", "best"):
        for entry in store.metrics(run_id, checkpoint) or ():
            print(f"{checkpoint:5} {entry['split']} {entry['metric']:13} {entry['value']:.4f}")
    return store.told


def diff(run, other):
    """Show the keys in which two runs' specifications differ."""
    from distillbench.config.specification import flat
    from distillbench.store import Store

    store = Store()
    sides = [flat(store.specification(store.find(name)).data) for name in (run, other)]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        left, right = (side.get(key, "(absent)") for side in sides)
        if left != right:
            print(f"{key}: {left} -> {right}")


def explain(suite, cell):
    """From a cell of a suite's table to its runs, their files, the commands that make them, and the control."""
    from distillbench.reporting.explain import explain as explain_cell

    text, problems = explain_cell(suite, " ".join(cell))
    print(text, end="")
    return problems


def export(suite, only, predictions, out):
    """Pack the finished runs of a suite, with their evaluations, into one archive with a manifest of digests."""
    from distillbench.archive import export_suite
    from distillbench.planning import plan_suite
    from distillbench.store import Store

    part = plan_suite(suite, only, write=False)
    runs, notes = export_suite(part, Store(), out, weights=not predictions)
    for note in notes:
        print(f"note: {note}")
    print(f"{out}: {len(runs)} of {len(part.runs)} runs, {megabytes(Path(out).stat().st_size)}")


def import_(file):
    """Put the runs of an archive into results/runs once all of it is verified; nothing that is here is changed.

    Exit code 1 where a run is here with other weights or predictions: it stays as it is.
    """
    from distillbench.archive import import_archive, teacher_warnings
    from distillbench.files import sha256_of
    from distillbench.store import Store

    store = Store()
    manifest, outcomes = import_archive(file, store)
    for run, state, detail in outcomes:
        older = f"  (older code: {text})" if state != "refused" and (text := store.older(run)) else ""
        print(f"{state:12} {run}{f': {detail}' if detail else ''}{older}")
    warnings = teacher_warnings({run for run, _, _ in outcomes}, store)
    for warning in warnings:
        print(f"warning: {warning}")
    suite = f"params/{manifest['suite']}.yaml"
    if not Path(suite).exists() or sha256_of(suite) != manifest["files"][suite]["sha256"]:
        look = shlex.join(["tar", "-xOf", file, suite])
        print(f"note: {suite} is {'another' if Path(suite).exists() else 'not'} here; `{look}` shows it")
    return int(bool(warnings) or any(state == "refused" for _, state, _ in outcomes))


def gc(delete, yes):
    """List, or delete, what lies in results/ for no suite of any git reference and no line of params/pins.txt."""
    from distillbench.gc import find_unused
    from distillbench.store import Store

    store = Store()
    found = find_unused(store)
    for item in found.items:
        print(f"{megabytes(item.size):>10}  {item.run}  ({', '.join(item.parts)})")
    total = f"{len(found.items)} runs, {megabytes(sum(item.size for item in found.items))}"
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
    deleted = [item.delete(store) for item in found.items]
    print(f"{sum(deleted)} of {len(deleted)} deleted")


def parity(folder):
    """Compare this code's numbers with reference vectors, file by file; exit code 1 if any differ."""
    from distillbench.parity import check_folder

    return check_folder(Path(folder))


def record():
    """Record the runs that are here in results/runs.dvc, beside those that it names already."""
    from distillbench.recording import record_runs

    if notice := record_runs():
        print(f"note: {notice}", file=sys.stderr)


def check(file):
    """Try the rules that every method keeps on a method in a file of your own; exit code 1 if one is broken."""
    from distillbench.config import method_files
    from distillbench.contract import check_method

    name = method_files.read(file)["name"]
    method_files.use([file])
    broken = check_method(name)
    print(f"{file}: {name} breaks {broken} rules" if broken else f"{file}: {name} keeps every rule")
    return 1 if broken else 0


def data(name, out):
    """Make a dataset's file and check it against the declared digest."""
    from distillbench.config import components
    from distillbench.data import data_path, load, prepare
    from distillbench.errors import one_of

    if name not in components.datasets():
        raise UserError(one_of(name, components.datasets(), "dataset"))
    if out and os.path.lexists(out) and os.path.abspath(out) != os.path.abspath(data_path(name)):
        load(name, out)  # raises where something else is in the way
    prepare(name, out or data_path(name))

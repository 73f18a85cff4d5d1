"""Which files of a suite the commands write, under which names; what is partial stands beside what is complete.

Each function takes a `tell` for lines that are worth a look while it works, and returns lines on what is damaged
among partial results. Raises UserError where results are missing, or where files of others are in the way.
"""

from distillbench.config.suite import load_suite
from distillbench.files import write_atomically
from distillbench.output import output
from distillbench.planning import plan_suite
from distillbench.reporting import collect
from distillbench.reporting.figure_names import figure_names
from distillbench.reporting.render import files, markdown
from distillbench.reporting.results import read_results
from distillbench.store import Store
from distillbench.store.index import index_path


def reports(suite):
    """The folder that the workflow has for a suite's tables, figures, page and paper."""
    return f"reports/{suite}"


def summary(suite, tell):
    """(text of a suite's table as far as it goes, lines on what is damaged); nothing is written."""
    results = read_results(suite, partial=True)
    _warn(results.index, results.store, tell)
    where = f"Files: {reports(suite)}/ (page, tables, figures, paper), results/runs/ (runs), results/suites/{suite}/"
    return f"{markdown.render(results.summary)}\n{where}", results.problems


def write_tables(suite, folder, partial, tell):
    """The table and its details in every format."""
    results, prefix = read_results(suite, partial), _prefix(partial)
    if partial:
        _warn(results.index, results.store, tell)
    with output(folder, f"tables {suite}", f"{reports(suite)}/tables", partial) as stage:
        for name, text in files((results.main, results.details)).items():
            write_atomically(stage / f"{prefix}{name}", text)
    return results.problems


def write_figures(suite, folder, partial, tell):
    """The figures that the suite's rows fill; folder: None for the workflow's."""
    from distillbench.reporting.figures import FIGURES
    from distillbench.reporting.figures.style import save

    results, prefix = read_results(suite, partial), _prefix(partial)
    default, boxes = f"{reports(suite)}/figures", set()
    with output(folder or default, f"figures {suite}", default, partial) as stage:
        for name in figure_names(plan_suite(suite, write=False)):
            for ending in ("pdf", "png"):
                boxes |= save(FIGURES[name](results), stage / f"{prefix}{name}.{ending}")
    if boxes:
        characters = "".join(sorted(boxes))
        tell(f"note: boxes in the figures, as no font here has {characters}; install one, say Noto")
    return results.problems


def write_report(suite, folder, partial, tell):
    """The page and the paper folder, which show the workflow's tables and figures; partial ones are written first."""
    from distillbench.reporting.page import render_page
    from distillbench.reporting.paper import write_paper

    load_suite(suite)  # for the references in a user's own method files
    results, shown, problems = read_results(suite, partial), reports(suite), []
    if partial:
        problems = write_tables(suite, f"{shown}/tables", partial, tell) + write_figures(suite, None, partial, tell)
    with output(folder or shown, f"report {suite}", shown, partial) as stage:
        page = render_page(results, shown, partial)
        write_atomically(stage / ("partial.html" if partial else "index.html"), page)
        write_paper(results, shown, stage / f"{_prefix(partial)}paper", partial)
    return problems + results.problems


def write_collected(suite, folder, tell):
    """metrics.csv and costs.csv of all runs of a suite's index, which have to be evaluated."""
    store = Store()
    index = collect.read_index(index_path(suite))
    _warn(index, store, tell)
    frames = collect.collect(index, store)
    collect.require_complete(suite, index, frames[0], collect.scope(index, store))
    with output(folder, f"collect {suite}", index_path(suite).parent) as stage:
        for path, frame in zip(collect.files(stage), frames, strict=True):
            write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def _prefix(partial):
    return "partial-" if partial else ""


def _warn(index, store, tell):
    """Say of what is collected where its parts do not belong together, or are not what this code would make."""
    for run in dict.fromkeys(index["run"]):
        state, detail = store.state(run)
        stale = [f"{run}: stale: {detail}"] if state == "stale" else []
        for line in stale + store.warnings(run):
            tell(f"warning: {line}")

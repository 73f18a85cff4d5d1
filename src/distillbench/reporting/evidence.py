"""What stands behind a suite's numbers: its runs with their records, the references of what they use, its figures."""

import re
from typing import NamedTuple

from distillbench.config import components
from distillbench.config.specification import Specification
from distillbench.errors import UserError
from distillbench.reporting.figures import CAPTIONS, FIGURES
from distillbench.reporting.index import figures_of
from distillbench.reporting.tables import METRIC, ROLES

NO_REFERENCE = "no reference declared"


class Run(NamedTuple):
    """A run with all its places in the table; `record` is empty where there is none, `accuracy` by checkpoint."""

    id: str
    rows: tuple[str, ...]
    pairs: tuple[str, ...]
    seed: int
    specification: Specification
    record: dict
    accuracy: dict
    state: tuple[str, str]


def gather(index, store):
    """The runs of an index, each once: teachers, students alone, distilled students, by row and pair."""
    cells, places = {}, list(dict.fromkeys(zip(index["row"], index["pair"], strict=True)))
    for cell in sorted(index.itertuples(), key=lambda c: (ROLES.index(c.role), places.index((c.row, c.pair)))):
        cells.setdefault(cell.run, []).append(cell)
    return [_run(run, places, store) for run, places in cells.items()]


def _run(run, places, store):
    accuracy = {
        checkpoint: entry["value"]
        for checkpoint in ("last", "best")
        for entry in store.metrics(run, checkpoint) or ()
        if entry["metric"] == METRIC
    }
    rows, pairs = (tuple(dict.fromkeys(getattr(cell, name) for cell in places)) for name in ("row", "pair"))
    record = store.record(run) or {}
    return Run(run, rows, pairs, places[0].seed, store.specification(run), record, accuracy, store.state(run))


def references(specification):
    """{what: BibTeX entry, or "" where its file declares none} of what a run uses."""
    method, trainer = specification["method"]["name"], specification["trainer"]["name"]
    used = {f"method {method}": components.methods().get(method, {})}  # a user's own may be gone
    if specification["gradient_scaling"]:
        scaling = components.gradient_scaling()
        used[f"gradient scaling {scaling['name']}"] = scaling
    if trainer != "base":
        used[f"trainer {trainer}"] = components.trainers()[trainer]
    dataset = specification["dataset"]["name"]
    used[f"dataset {dataset}"] = components.datasets()[dataset]
    return {what: declared.get("bibtex", "").strip() for what, declared in used.items()}


def citation_key(entry):
    """The key of a BibTeX entry. Raises UserError for a text that is none."""
    found = re.match(r"@\w+\{\s*([^\s,{}]+)\s*,", entry)
    if not found or entry.count("{") != entry.count("}"):
        raise UserError(f"bibtex = {entry[:40]!r}...: expected one entry, @article{{key, title = {{...}}, ...}}")
    return found[1]


def figure_files(folder, index, runs, partial):
    """[(name, caption, path without ending)] of the figures in a folder, less those that these runs do not fill.

    runs: of `gather`. A file of that name that is there nevertheless shows something else.
    """
    absent = FIGURES.keys() - figures_of([run.specification for run in runs], any(index["control"]))
    files = {name: folder / (f"partial-{name}" if partial else name) for name in CAPTIONS if name not in absent}
    return [(name, CAPTIONS[name], file) for name, file in files.items() if file.with_suffix(".png").exists()]


def other_tables(folder, ending, partial):
    """The files of a suite's tables apart from the main one."""
    prefix = "partial-" if partial else ""
    found = sorted(
        path for path in (folder / "tables").glob(f"*.{ending}") if path.stem.startswith("partial-") == partial
    )
    return [path for path in found if path.stem != f"{prefix}main"]

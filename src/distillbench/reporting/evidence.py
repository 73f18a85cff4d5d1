"""What stands behind a suite's numbers: its runs with their records, the references of what they use, its figures."""

import re
from pathlib import Path
from typing import NamedTuple

from distillbench.config import components
from distillbench.config.specification import Specification
from distillbench.errors import UserError
from distillbench.reporting.collect import shown
from distillbench.reporting.figure_names import figures_of
from distillbench.reporting.figures import CAPTIONS, FIGURES
from distillbench.reporting.tables import ROLES

NO_REFERENCE = "no reference declared"


class Run(NamedTuple):
    """A run with all its places in the table; `record` is empty where there is none, `accuracy` by checkpoint."""

    id: str
    role: str
    rows: tuple[str, ...]
    pairs: tuple[str, ...]
    seed: int
    specification: Specification
    record: dict
    accuracy: dict
    state: tuple[str, str]


def gather(results):
    """The runs of `results.Results`, each once: teachers, students alone, distilled students, by row and pair."""
    index, name, accuracy = results.index, results.scope.headline, {}
    for (run, checkpoint), value in shown(results.metrics, results.scope).reindex(columns=[name])[name].items():
        accuracy.setdefault(run, {})[checkpoint] = value
    cells, places = {}, list(dict.fromkeys(zip(index["row"], index["pair"], strict=True)))
    for cell in sorted(index.itertuples(), key=lambda c: (ROLES.index(c.role), places.index((c.row, c.pair)))):
        cells.setdefault(cell.run, []).append(cell)
    return [_run(run, places, accuracy.get(run, {}), results.store) for run, places in cells.items()]


def _run(run, places, accuracy, store):
    rows, pairs = (tuple(dict.fromkeys(getattr(cell, name) for cell in places)) for name in ("row", "pair"))
    of_run = store.specification(run), store.record(run) or {}, accuracy, store.state(run)
    return Run(run, places[0].role, rows, pairs, places[0].seed, *of_run)


def references(specification):
    """{what: BibTeX entry, or "" where its file declares none} of what a run uses."""
    method, trainer = specification["method"]["name"], specification["trainer"]["name"]
    used = {f"method {method}": components.methods().get(method, {})}  # a user's own may be gone
    for name, declared in specification.transforms.items():
        used[f"{declared['place'].replace('_', ' ')} {name}"] = declared
    if components.trainers()[trainer]["label"]:
        used[f"trainer {trainer}"] = components.trainers()[trainer]
    if (optimizer := specification["schedule"]["TYPE"]) != "SGD":
        used[f"optimizer {optimizer}"] = components.optimizers().get(optimizer, {})
    dataset = specification["dataset"]["name"]
    used[f"dataset {dataset}"] = components.datasets()[dataset]
    for network in reversed(specification.networks):
        used[f"network {network}"] = components.networks(dataset).get(network, {})
    return {what: declared.get("bibtex", "").strip() for what, declared in used.items()}


def citation_key(entry):
    """The key of a BibTeX entry. Raises UserError for a text that is none."""
    found = re.match(r"@\w+\{\s*([^\s,{}]+)\s*,", entry)
    if not found or entry.count("{") != entry.count("}"):
        raise UserError(f"bibtex = {entry[:40]!r}...: expected one entry, @article{{key, title = {{...}}, ...}}")
    return found[1]


def citation(entry):
    """Authors and year of a BibTeX entry, "He et al. 2016"; what it says of itself where it has none."""
    found = [re.search(rf"\b{field} = {{(.*?)}},?\n", entry, re.DOTALL) for field in ("author", "year")]
    if not all(found):
        return NO_REFERENCE
    names = [name.partition(",")[0].strip() for name in re.split(r"\s+and\s+", found[0][1])]
    return f"{f'{names[0]} et al.' if len(names) > 2 else ', '.join(names)} {found[1][1]}"


def figure_files(results, folder, runs, partial):
    """[(name, caption, path without ending)] of the figures in a suite's folder, less those that its runs do not fill.

    runs: of `gather`. A file of that name that is there nevertheless shows something else.
    """
    absent = FIGURES.keys() - figures_of([run.specification for run in runs], any(results.index["control"]))
    files = {n: Path(folder, "figures", f"partial-{n}" if partial else n) for n in CAPTIONS if n not in absent}
    scope, coverage = results.scope, results.table.coverage
    said = {"title": scope.title, "phrase": scope.compared.phrase, "split": scope.split, "coverage": coverage}
    said["chosen_on"] = scope.chosen_on
    captions = {name: text.format(**said) for name, text in CAPTIONS.items()}
    return [(name, captions[name], file) for name, file in files.items() if file.with_suffix(".png").exists()]

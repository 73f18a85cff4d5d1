"""YAML files as mdistiller and GKD publish them, as a layer of keys below a row's own: `published: FILE`."""

from pathlib import Path
from typing import NamedTuple

from distillbench.config.resolve import Written, flatten
from distillbench.config.schema import all_keys, method_keys
from distillbench.config.yaml_file import read_yaml
from distillbench.errors import UserError

ELSEWHERE = ("DATASET.TYPE", "DISTILLER.TEACHER", "DISTILLER.STUDENT")  # what a suite says in sections of its own
TRAINERS = {"crd": "base", "crd_dot": "dot"}  # theirs, for a batch that also has indices: every batch here has


class Published(NamedTuple):
    """A file: its keys but the method and what a suite says elsewhere; that; the method, where it names one."""

    written: Written
    elsewhere: dict
    method: str | None


def read_published(file, root):
    """`Published` of a file, whose path is relative to the project. Raises UserError for a key that nothing has."""
    content = read_yaml(Path(root) / file)
    solver = content.get("SOLVER")
    for theirs, ours in TRAINERS.items() if isinstance(solver, dict) else ():
        if solver.get("TRAINER") == theirs:
            content["SOLVER"] = {**solver, "TRAINER": ours}
    try:
        values = flatten(content, "").values
    except UserError as error:
        raise UserError(f"{file}: {str(error).removeprefix('.')}") from None
    method, elsewhere = values.pop("DISTILLER.TYPE", None), {key: values.pop(key, None) for key in ELSEWHERE}
    return Published(Written(values, frozenset(), str(file)), elsewhere, method)


def as_its_code(published, method):
    """`Published` as its repository runs it: where a method's own code deviates from the paper's, as the code does."""
    official = _official(method)
    if method != published.method or official is None:
        return published
    values = {official: "mdistiller", **published.written.values}
    return published._replace(written=published.written._replace(values=values))


def notes(published, row, layers, dataset, pair):
    """Yield a line on each thing in which a run could be meant otherwise than it is done.

    row: `Written` of its own keys; layers: those below, the published one among them; dataset, pair: the suite's.
    """
    file, official = published.written.where, _official(row.values["DISTILLER.TYPE"])
    if published.written.values.get(official) == "mdistiller" and official not in row.values:
        yield f"as the code of {file} has it ({official}: mdistiller); the paper's method: {official}: paper"
    stated = {"DATASET.TYPE": all_keys()["DATASET.TYPE"].default}
    stated |= {key: value for key, value in published.elsewhere.items() if value}
    here = dict(zip(ELSEWHERE, (dataset, pair.teacher, pair.student), strict=True))
    if not stated.items() <= here.items():
        yield f"{file} is for {', '.join(stated.values())}; dataset and pairs of the suite count"
    written = {key for place in (*layers, row) for key in place.values}
    keys = method_keys(row.values["DISTILLER.TYPE"]).items()
    left = [name for name, key in keys if key.default_in("gkd") != key.default and name not in written]
    if left and "DEFAULTS" not in written:
        yield f"{', '.join(left)}: mdistiller's defaults; for a file of the GKD repository write DEFAULTS: gkd"


def _official(method):
    """The key that says whether a method is the paper's or that of mdistiller's code, or None."""
    keys = method_keys(method).items()
    return next(
        (name for name, key in keys if name.endswith(".OFFICIAL") and "mdistiller" in (key.choices or ())), None
    )

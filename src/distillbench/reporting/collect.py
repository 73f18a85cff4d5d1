"""Collect what a suite's runs left: metrics, and what each run took."""

from typing import NamedTuple

import pandas as pd

from distillbench import tasks
from distillbench.command_lines import workflow
from distillbench.config.protocols import chosen_on, phrase
from distillbench.errors import UserError
from distillbench.store.layout import CHECKPOINTS, evaluations

METRICS = ["run", "task", "split", "checkpoint", "metric", "value"]
COSTS = ["parameters", "multiply_adds", "seconds", "images_per_second"]  # of a run's record


class Scope(NamedTuple):
    """Whose metrics a suite's tables and figures show: those of one task, by its name, on one split.

    protocol: of the runs, as in a specification, None where it is not known; seen: whether there are students whose
    teacher has seen the images that they hold out.
    """

    task: str
    split: str
    protocol: str | dict | None = None
    seen: bool = False

    @property
    def headline(self):
        """The name of the metric that is compared."""
        return tasks.task(self.task).headline

    @property
    def metrics(self):
        """{name: `Metric`} of the task, in the order of their columns."""
        return tasks.part(self.task, "metrics").METRICS

    @property
    def compared(self):
        """The `Metric` that is compared."""
        return self.metrics[self.headline]

    @property
    def curves(self):
        """The columns of history.csv that learning curves show: the metric that is compared, and the cross entropy."""
        return f"{self.chosen_on}_{self.headline}", f"{self.chosen_on}_loss_ce"

    @property
    def chosen_on(self):
        """The split that the best epoch is chosen on."""
        return self.split if self.protocol is None else chosen_on(self.protocol)

    @property
    def terms(self):
        """The protocol in words, for legends; "" where it is not known."""
        seen = "; the teachers have seen the images held out" if self.seen else ""
        return "" if self.protocol is None else phrase(self.protocol) + seen

    @property
    def title(self):
        """What is compared, at the beginning of a sentence."""
        phrase = self.compared.phrase
        return f"{phrase[0].upper()}{phrase[1:]}"


def scope(index, store, metrics=None):
    """The `Scope` of a suite's runs, which are of one task and evaluated alike; index: as in its index.csv, where
    teachers stand first.

    metrics: as collected, which say it where nothing else is left of the runs.
    """
    if index.empty:
        raise UserError("index.csv: has no runs; remove or restore it")
    try:
        teacher, specification = (store.specification(index["run"].iloc[i]) for i in (0, -1))
    except UserError:
        found = [] if metrics is None else metrics[["task", "split"]].drop_duplicates().itertuples(index=False)
        if len(found := list(found)) != 1:
            raise
        return Scope(*found[0])
    (split,) = {evaluation.split for evaluation in evaluations(specification).values()}
    protocol = specification["dataset"]["protocol"]
    return Scope(specification["task"], split, protocol, teacher["dataset"]["protocol"] != protocol)


def read_index(path):
    """The suite's index, one line a cell; the texts may be empty, the seed is an integer."""
    return read_csv(path, ("row", "run", "seed"), keep_default_na=False, dtype={"seed": int})


def read_csv(path, columns, **options):
    """A CSV file as a frame. Raises UserError if it is not one or lacks a column."""
    try:
        frame = pd.read_csv(path, **options)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{path}: not readable as CSV ({' '.join(str(error).split())}); remove or restore it") from None
    missing = [name for name in columns if name not in (*frame.columns, frame.index.name)]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]}; remove or restore it")
    return frame


def collect(index, store):
    """(metrics, costs) of every run of an index: evaluations in long form; a line a run whose record is here."""
    runs = list(dict.fromkeys(index["run"]))
    metrics = [{"run": run, **entry} for run in runs for c in CHECKPOINTS for entry in store.metrics(run, c) or ()]
    records = {run: store.record(run) for run in runs}
    costs = [
        {"run": run, **{name: record.get(name) or None for name in COSTS}}  # 0.0 is none: it was written where unknown
        for run, record in records.items()
        if record
    ]
    return pd.DataFrame(metrics, columns=METRICS), pd.DataFrame(costs, columns=["run", *COSTS])


def shown(metrics, scope):
    """Collected metrics of a scope: a frame with a line a (run, checkpoint), a column a metric.

    Raises UserError where there are two values of one metric.
    """
    found = metrics[(metrics["task"] == scope.task) & (metrics["split"] == scope.split)].drop_duplicates()
    for twice in found[found.duplicated(["run", "checkpoint", "metric"])].itertuples():
        what = f"{twice.metric} of the {twice.checkpoint} predictions"
        raise UserError(f"{twice.run}: two values of {what}; `distillbench evaluate {twice.run}` and collect again")
    return found.pivot(index=["run", "checkpoint"], columns="metric", values="value")


def require_complete(suite, index, metrics, scope, remedy=""):
    """Raises UserError unless every run of an index has metrics; remedy: what else may be done."""
    evaluated = set(shown(metrics, scope).index)
    runs = list(dict.fromkeys(index["run"]))
    missing = [run for run in runs if any((run, checkpoint) not in evaluated for checkpoint in CHECKPOINTS)]
    if missing:
        what = f"{len(missing)} of {len(runs)} runs have no metrics yet, e.g. {missing[0]}"
        raise UserError(f"suite {suite}: {what}; `{workflow(suite)}` makes them{remedy}")


def files(folder):
    """Where the two lie in a suite's folder."""
    return folder / "metrics.csv", folder / "costs.csv"


def failures(index, store, metrics, scope):
    """{run: reason} of the runs of an index that failed and were not repaired since, or are too damaged to count."""
    states = {run: store.state(run) for run in dict.fromkeys(index["run"])}
    counted = set(shown(metrics, scope).index.get_level_values("run"))
    return {
        run: detail
        for run, (state, detail) in states.items()
        if state == "failed" or (state == "damaged" and run not in counted)
    }

"""Collect what a suite's runs left: metrics, and what each run took."""

import pandas as pd

from distillbench.evaluation import CHECKPOINTS
from distillbench.files import read_json

METRICS = ["run", "task", "split", "checkpoint", "metric", "value"]
COSTS = ["parameters", "multiply_adds", "seconds", "images_per_second"]  # of a run's record


def read_index(path):
    """The suite's index, one line a cell; the texts may be empty, the seed is an integer."""
    return pd.read_csv(path, keep_default_na=False, dtype={"seed": int})


def collect(index, store):
    """(metrics, costs) of every run of an index: evaluations in long form; a line a run whose record is here."""
    runs = list(dict.fromkeys(index["run"]))
    metrics = [{"run": run, **entry} for run in runs for c in CHECKPOINTS for entry in store.metrics(run, c) or ()]
    records = {run: store.run(run) / "record.json" for run in runs}
    found = {run: read_json(path) for run, path in records.items() if path.exists()}
    costs = [{"run": run, **{name: record.get(name) for name in COSTS}} for run, record in found.items()]
    return pd.DataFrame(metrics, columns=METRICS), pd.DataFrame(costs, columns=["run", *COSTS])


def files(folder):
    """Where the two lie in a suite's folder."""
    return folder / "metrics.csv", folder / "costs.csv"


def failures(index, store):
    """{run: reason} of the runs of an index that failed and were not repaired since."""
    states = {run: store.state(run) for run in dict.fromkeys(index["run"])}
    return {run: detail for run, (state, detail) in states.items() if state == "failed"}

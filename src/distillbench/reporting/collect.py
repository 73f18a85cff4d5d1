"""Collect the metrics of a suite's runs into one file."""

import pandas as pd

from distillbench.evaluation import CHECKPOINTS

COLUMNS = ["run", "task", "split", "checkpoint", "metric", "value"]


def read_index(path):
    """The suite's index, one line a cell; the texts may be empty, the seed is an integer."""
    return pd.read_csv(path, keep_default_na=False, dtype={"seed": int})


def collect(index, store):
    """Long-form metrics of every run of an index that is evaluated."""
    entries = [
        {"run": run, **entry}
        for run in dict.fromkeys(index["run"])
        for checkpoint in CHECKPOINTS
        for entry in store.metrics(run, checkpoint) or ()
    ]
    return pd.DataFrame(entries, columns=COLUMNS)


def failures(index, store):
    """{run: reason} of the runs of an index that failed and were not repaired since."""
    states = {run: store.state(run) for run in dict.fromkeys(index["run"])}
    return {run: detail for run, (state, detail) in states.items() if state == "failed"}

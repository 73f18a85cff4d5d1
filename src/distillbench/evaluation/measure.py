"""metrics.json of a run, from its stored predictions and those of its teacher. Which metrics: its task says."""

import hashlib

import numpy as np

from distillbench import tasks
from distillbench.errors import RunFailed, UserError
from distillbench.files import to_json, write_atomically
from distillbench.store.identity import identity_of
from distillbench.store.layout import evaluations

SCHEMA = 1


def write_metrics(store, run_id, checkpoint):
    """Compute metrics.json of a run beside its predictions.npz, in long form; returns its content.

    The file names the predictions that it was computed from, by their digest, that of the weights behind them and the
    precision in which they were ranked, and under "lacking" why there is no value of a metric.
    Raises UserError where something is missing, damaged or not what it names, RunFailed if a metric is not finite.
    """
    specification, record = store.specification(run_id), store.record(run_id)
    task, evaluation = tasks.task(specification["task"]), evaluations(specification)[checkpoint]
    directory = store.run(run_id) / evaluation.folder
    predictions, named = _read(directory, specification)
    weights = record and record["weights"].get(checkpoint)
    if weights and predictions.weights_sha256 not in (None, weights):
        what = "predictions of other weights than record.json names"
        raise UserError(f"{directory}/predictions.npz: {what}; `distillbench evaluate {run_id}`")
    made_from, teacher = {"predictions": named}, None
    if specification.teacher_id:
        taught_by = store.specification(specification.teacher_id)
        made_by = evaluations(taught_by)[specification["teacher"]["checkpoint"]]
        made_by = store.run(specification.teacher_id) / made_by.folder
        teacher, made_from["teacher_predictions"] = _read(made_by, taught_by)
        if not np.array_equal(predictions.targets, teacher.targets):
            raise UserError(f"{made_by}: predictions for other images than {directory}; remove both, evaluate again")
    values, lacking = compute(tasks.part(task.name, "metrics").METRICS, predictions, teacher)
    for name, value in values.items():
        if not np.isfinite(value):
            raise RunFailed(f"{run_id}: {name} of the {checkpoint} predictions is {value}; the training diverged")
    lines = [
        {"task": task.name, "split": evaluation.split, "checkpoint": checkpoint, "metric": name, "value": value}
        for name, value in values.items()
    ]
    content = {"schema": SCHEMA, "run_sha256": specification.digest, "evaluation": task.protocol, "metrics": lines}
    content |= {**made_from, **({"lacking": lacking} if lacking else {})}
    write_atomically(directory / "metrics.json", to_json(content))
    return content


def compute(metrics, predictions, teacher=None):
    """({metric: value}, {metric: why it has none}) of a task's metrics; teacher: its predictions, if there is one."""
    values, lacking = {}, {}
    for name, metric in metrics.items():
        if teacher is None and metric.teacher:
            continue
        try:
            values[name] = metric.compute(predictions, *([teacher] if metric.teacher else []))
        except tasks.Lacking as reason:
            lacking[name] = str(reason)
    return values, lacking


def _read(directory, specification):
    """(predictions, what tells them from others), from one opened file, as another may take its place.

    ranked_in: "fp16" where they hold no ranks.
    """
    path = directory / "predictions.npz"
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            predictions = tasks.part(specification["task"], "predictions").parse(file, path)
            named = {**identity_of(file), "ranked_in": predictions.precision, "sha256": digest}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `distillbench evaluate` makes it from the run's weights") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if predictions.run_sha256 != specification.digest:
        raise UserError(f"{path}: predictions of another run; remove the file and evaluate again")
    if not predictions.finite:
        raise RunFailed(f"{path}: logits are not finite; the training diverged: lower SOLVER.LR")
    return predictions, named

"""Stores of runs that were never trained: specifications of real suites, small weights, records that fit them."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import torch

from distillbench.engine.weights import save_tensors, weights_digest
from distillbench.evaluation.measure import write_metrics
from distillbench.files import read_json, to_json, write_atomically
from distillbench.planning import plan_suite
from distillbench.store import Store
from distillbench.store.layout import CHECKPOINTS, evaluations
from distillbench.tasks.classification.stored import ranked

SUITE = """\
dataset: digits
seeds: [0, 1]
pairs: [{teacher: resnet20, student: resnet8}]
methods:
  NONE: {DISTILLER.TYPE: NONE}
  KD: {DISTILLER.TYPE: KD, control: NONE}
"""


def new_project(root, suite=SUITE, name="small"):
    """A folder with one suite, planned; returns its `Store`."""
    (root / "params").mkdir(parents=True, exist_ok=True)
    (root / "params" / f"{name}.yaml").write_text(suite)
    plan_suite(name, root=root)
    return Store(root)


def runs(root, name="small"):
    """{ROW/sSEED: run id}"""
    return {f"{cell.row}/s{cell.seed}": cell.specification.id for cell in plan_suite(name, root=root).cells}


def finish(store, run, weight=1.0, correct=50):
    """Leave what a trained and evaluated run leaves, teachers first; `correct` of its 100 test images are right."""
    directory, specification = store.run(run), store.specification(run)
    shutil.rmtree(directory, ignore_errors=True)
    model = {"fc.weight": torch.full((4,), weight)}
    teacher = specification.teacher_id
    record = {
        "schema": 1,
        "run": run,
        "weights": dict.fromkeys(CHECKPOINTS, weights_digest(model)),
        "teacher_weights": read_json(store.run(teacher) / "record.json")["weights"]["last"] if teacher else None,
        "source": {"file": "params/small.yaml", "row": "a row", "notes": []},
        "finished": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "modified": ["src/distillbench/store.py"],
        "versions": {"torch": "2.0"},
        "device": "a device",
        "threads": 1,
        "platform": "a platform",
        "seconds": 10.0,
        "images_per_second": 50.0,
    }
    write_atomically(directory / "spec.json", to_json(specification.as_file()))
    for checkpoint in CHECKPOINTS:
        save_tensors(directory / f"model.{checkpoint}.pt", {"model": model})
        predict(directory, specification, checkpoint, correct, weights_digest(model))
        write_metrics(store, run, checkpoint)
    write_atomically(directory / "history.csv", f"epoch,test_top1\n1,{correct}\n")
    write_atomically(directory / "record.json", to_json(record))


def predict(directory, specification, checkpoint, correct, weights_sha256):
    targets = np.zeros(100, np.int32)
    logits = np.zeros((100, 10), np.float32)
    logits[np.arange(100), np.where(np.arange(100) < correct, 0, 1)] = 1
    path = directory / evaluations(specification)[checkpoint].folder / "predictions.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    ranks = {
        name: tensor.numpy() for name, tensor in ranked(torch.tensor(logits), torch.tensor(targets).long()).items()
    }
    digests = {"targets_sha256": hashlib.sha256(targets).hexdigest(), "run_sha256": specification.digest}
    digests |= {"weights_sha256": weights_sha256, "dataset_sha256": specification["dataset"]["sha256"]}
    np.savez(path, logits=logits.astype(np.float16), targets=targets, precision="fp32", **ranks, **digests)


def finish_all(root, weight=1.0, correct=50, name="small"):
    store = Store(root)
    for run in plan_suite(name, root=root).runs:  # teachers first
        finish(store, run, weight, correct)


def files(folder):
    """{path below the folder: content}"""
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

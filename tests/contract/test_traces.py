"""Numbers do not move without a new version.

Each component (dataset, network family, method, gradient scaling, trainer) has the losses of five float64 steps in
fixtures/traces.json under its version. After a change that is meant to move them, raise the component's `version`
and write the file anew: PYTHONPATH=tests python tests/contract/test_traces.py
"""

import json

import pytest
import torch
from standins import FIXTURES, TEACHER, feed_of

from distillbench.config import components
from distillbench.config.resolve import flatten, resolve
from distillbench.config.specification import build_specification
from distillbench.data import Images, digits
from distillbench.engine.learner import Learner
from distillbench.engine.streams import initialisation
from distillbench.models import build_network

STORED = FIXTURES / "traces.json"


def subjects():
    """{component and version: keys of a run that uses it}."""
    found = {}
    for name in ("digits",):
        declared = components.datasets()[name]
        found[f"dataset {name} v{declared['version']}"] = {"DATASET.TYPE": name}
    for name, declared in components.trainers().items():
        method = "KD" if declared["two_losses"] else "NONE"
        keys = {"DISTILLER.TYPE": method, "SOLVER.TRAINER": name}
        found[f"trainer {name} v{declared['version']}"] = keys
        if declared["version_without_margin"]:
            spent = {"SOLVER.MOMENTUM": 0.4, f"{declared['node']}.{declared['margin']}": 0.4}
            found[f"trainer {name} v{declared['version_without_margin']}"] = {**keys, **spent}
    for name, declared in components.optimizers().items():
        found[f"optimizer {name} v{declared['version']}"] = {"SOLVER.TYPE": name, "SOLVER.LR": 0.001}
    found[f"optimizer SGD v{components.optimizers()['SGD']['version']} Nesterov"] = {"SOLVER.NESTEROV": True}
    for name, declared in components.methods().items():
        found[f"method {name} v{declared['version']}"] = {"DISTILLER.TYPE": name}
    for name, declared in components.networks("digits").items():  # the first, which is the smallest, of a family
        keys = {"DISTILLER.STUDENT": name}
        if name.startswith(("Mobile", "Shuffle")):  # at the rate of the others their rounding errors grow
            keys["SOLVER.LR"] = 0.001
        found.setdefault(f"network {declared['family']} v{declared['version']}", keys)
    for name, declared in components.transforms().items():
        controls = declared["keys"]["FACTORS"].choices if "FACTORS" in declared["keys"] else [""]
        for control in controls:
            keys = {f"{declared['node']}.FACTORS": control} if control else {declared["node"]: {}}
            found[f"scaling {name} {control} v{declared['version']}"] = {"DISTILLER.TYPE": "KD", **keys}
    return found


def trace(keys):
    """The losses of five steps of a run."""
    base = {"DATASET.TYPE": "digits", "DISTILLER.STUDENT": "resnet8", "DISTILLER.TYPE": "NONE"}
    config, transforms, _ = resolve((), flatten({**base, "SOLVER.PRECISION": "fp64", **keys}, "trace"))
    needs = components.methods()[config.DISTILLER.TYPE]["teacher"] != "none"
    specification = build_specification(config, transforms=transforms, teacher=TEACHER if needs else None, seed=0)
    with initialisation(0, "teacher"):
        teacher = build_network("resnet8", "digits").requires_grad_(False).eval() if needs else None
    learner = Learner(specification, feed_of(specification, Images(*digits.arrays())), teacher)
    learner.begin(1, config.SOLVER.LR)
    losses = []
    for _ in range(5):
        learner.sums.zero()
        learner.step(32)
        sums = learner.sums.totals()
        losses.append(sum(value.item() for name, value in sums.items() if name.startswith("loss")) / 32)
    return losses


@pytest.mark.parametrize("subject", subjects())
def test_numbers_do_not_move_without_a_new_version(subject):
    stored = json.loads(STORED.read_text())
    assert subject in stored, f"no trace of {subject}: PYTHONPATH=tests python tests/contract/test_traces.py"
    assert trace(subjects()[subject]) == pytest.approx(stored[subject], rel=1e-8), "raise the version, see above"


if __name__ == "__main__":
    torch.set_num_threads(1)
    STORED.write_text(json.dumps({name: trace(keys) for name, keys in subjects().items()}, indent=1) + "\n")

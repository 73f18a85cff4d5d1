"""One training step of resnet8 on a batch of digits: the processor, and the SHA-256 of the weights behind the step.

Two kinds of arithmetic, on one machine (docs/demo.md):

    python tools/one_step.py
    ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 python tools/one_step.py
"""

import torch

from distillbench.config.resolve import flatten, resolve
from distillbench.config.specification import build_specification
from distillbench.data import Images, digits
from distillbench.engine.feed import Feed, Split
from distillbench.engine.learner import Learner
from distillbench.engine.processor import processor
from distillbench.engine.weights import weights_digest

torch.set_num_threads(1)
keys = {"DATASET.TYPE": "digits", "DISTILLER.STUDENT": "resnet8", "DISTILLER.TYPE": "NONE"}
config, transforms, _ = resolve((), flatten({**keys, "SOLVER.PRECISION": "fp32"}, "one step"))
specification = build_specification(config, transforms=transforms, teacher=None, seed=0)
split = Split.put(*Images(*digits.arrays()).training, specification, "cpu")
learner = Learner(specification, Feed(split, specification["views"], seed=0))
learner.begin(1, lr=0.02)
learner.step(32)
print(processor())
print(weights_digest(learner.student.state_dict()))

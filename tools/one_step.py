"""One training step of resnet8 on random images: the processor, and the SHA-256 of the weights behind the step.

Two kinds of arithmetic, on one machine (docs/demo.md):

    python tools/one_step.py
    ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 python tools/one_step.py
"""

import torch

from distillbench import contract
from distillbench.engine.processor import processor
from distillbench.engine.weights import weights_digest

torch.set_num_threads(1)
keys = {"DISTILLER.TYPE": "NONE", "SOLVER.PRECISION": "fp32"}
learner = contract.learner(keys)
contract.steps(learner)
print(processor())
print(weights_digest(learner.student.state_dict()))

"""What the vectors call a method, and what they hold of it besides its losses."""

import torch

from distillbench.checks.parity.cases import NotCovered, compare, specification_of
from distillbench.methods import build_method
from distillbench.methods.base import Batch, LogitMethod
from distillbench.methods.dkd import nckd_loss, tckd_loss
from distillbench.methods.features import StageMethod
from distillbench.methods.kd import kd_loss

# Name of a method in the vectors: what it is here, as the keys of a params file.
METHODS = {
    "KD": {"DISTILLER.TYPE": "KD"},
    "KD_in_GKD_repo": {"DISTILLER.TYPE": "KD", "DEFAULTS": "gkd"},
    "GradientKD": {"DISTILLER.TYPE": "GradientKD"},
    "DKD": {"DISTILLER.TYPE": "DKD"},
    "DKD_GKD": {"DISTILLER.TYPE": "DKD", "GKD": {}},
    "AT": {"DISTILLER.TYPE": "AT", "AT.OFFICIAL": "mdistiller"},
    "NST": {"DISTILLER.TYPE": "NST", "NST.OFFICIAL": "mdistiller"},
    "PKT": {"DISTILLER.TYPE": "PKT"},
    "SP": {"DISTILLER.TYPE": "SP"},
    "RKD": {"DISTILLER.TYPE": "RKD"},
    "KDSVD": {"DISTILLER.TYPE": "KDSVD", "KDSVD.OFFICIAL": "mdistiller"},
    "FitNet": {"DISTILLER.TYPE": "FITNET"},
    "VID": {"DISTILLER.TYPE": "VID", "VID.OFFICIAL": "mdistiller"},
    "OFD": {"DISTILLER.TYPE": "OFD", "OFD.OFFICIAL": "mdistiller"},
    "CRD": {"DISTILLER.TYPE": "CRD"},
    "ReviewKD": {"DISTILLER.TYPE": "REVIEWKD", "REVIEWKD.OFFICIAL": "mdistiller"},
}
# How keys of hyperparameters begin that tell of results, or of what is given.
NO_SETTINGS = ("hard_coded", "raw_loss_if", "stage_channels", "num_data")
VARIANCE = (1e-6, 0.0)  # of VID, which the vectors have in single precision
SINGULAR = (1e-4, 1e-7)  # of KDSVD, whose vectors are those of single precision


def require_known(name):
    if name not in METHODS:
        raise NotCovered(f"losses of {name}")


def reference_method(name, description, arrays, context):
    """The method that a case describes, built as a run would build it, in training mode."""
    keys, stated = METHODS[name], description["hyperparameters"].items()
    hyperparameters = {key: value for key, value in stated if not key.startswith(NO_SETTINGS)}
    method = build_method(specification_of({**keys, keys["DISTILLER.TYPE"]: hyperparameters}), context)
    if method.name == "KDSVD":
        method.oriented = lambda vectors, stage: _with_signs(vectors, arrays[f"aux.teacher.v.{stage}"])
    if method.name == "VID" and "aux.pred_var.0" in arrays:
        method.variance = _with_values(method.variance, arrays)
    return method.train()


def _with_values(variance, arrays):
    """VID's variances with the values of a case, to which they are near: libraries round single precision otherwise."""

    def stated(stage):
        ours, name = variance(stage), f"aux.pred_var.{stage}"
        compare(name, ours, arrays[name], VARIANCE)
        return ours + (torch.from_numpy(arrays[name]).to(ours) - ours).detach()

    return stated


def _with_signs(vectors, stated):
    """Singular vectors [N, D, K] with the signs of those of a case: libraries differ, and the loss depends on them."""
    return vectors * (vectors * torch.from_numpy(stated).to(vectors)).sum(dim=1, keepdim=True).sign()


def give_pairs(method, contrasted):
    """Let CRD contrast a batch with the images of a case, [N, 1 + K], in place of those that it would draw."""
    method.pairs.forward = lambda batch, epoch: torch.as_tensor(contrasted)


def outputs_of(method):
    """{name of an array: tensor} of what modules of a method give, from now on, in each call."""
    found = {}

    def keep(number, made):
        found.update(zip((f"out.abf.{number}.out_feature", f"out.abf.{number}.residual"), made, strict=True))

    for number, fusion in enumerate(method.abfs if method.name == "REVIEWKD" else ()):
        fusion.register_forward_hook(lambda module, inputs, made, number=number: keep(number, made))
    return found


def tolerances(method, value, gradient):
    """The tolerances (rtol, atol) of a method's losses and gradients, in place of those of other methods."""
    if method.name != "KDSVD":
        return value, gradient
    return SINGULAR, (1e-3 if method.hyperparameters["K"] == 1 else 3e-2, 1e-7)


def raw_losses(method, student, teacher, target):
    """The loss functions of a method by their names in the vectors, without the run's weights and warm-up.

    The gradient of the official gkd function is scaled; those of DKD_GKD's three are not.
    """
    batch = Batch((), target, target)
    if not isinstance(method, LogitMethod):
        stages = method.stage_losses(student, teacher) if isinstance(method, StageMethod) else []
        whole = method.distillation_loss(student, teacher, batch, {})
        return {method.name.lower(): whole, **{f"stage{i}": loss for i, loss in enumerate(stages, 1)}}
    logits, temperature = (student.logits, teacher.logits), method.hyperparameters[method.temperature]
    if method.name != "DKD":
        for transform in method.transforms:
            logits = transform(*logits, batch)
        return {"gkd" if method.transforms else "kd": kd_loss(*logits, temperature)}
    return {
        "dkd": method.distillation_loss(*logits, target),
        "tckd": tckd_loss(*logits, target, temperature),
        "nckd": nckd_loss(*logits, target, temperature),
    }

"""Losses and their gradients: of given logits, and of whole networks."""

import torch

from distillbench.checks.parity.cases import NotCovered, Unreadable, known_precision, says_overflow, specification_of
from distillbench.checks.parity.networks import filled_images, network
from distillbench.methods import build_method
from distillbench.methods.base import Batch, Context, Output
from distillbench.methods.dkd import nckd_loss, tckd_loss
from distillbench.methods.kd import kd_loss

LOSS = {"float64": (1e-9, 1e-11), "float32": (1e-5, 2e-6)}  # dtype: (rtol, atol)
GRADIENT = {"float64": (1e-8, 1e-10), "float32": (1e-4, 2e-5)}
INTEGRATION, INTEGRATION_GRADIENT = (1e-8, 1e-10), (1e-7, 1e-10)

# Name of a method in the vectors: what it is here, as the keys of a params file.
METHODS = {
    "KD": {"DISTILLER.TYPE": "KD"},
    "KD_in_GKD_repo": {"DISTILLER.TYPE": "KD", "DEFAULTS": "gkd"},
    "GradientKD": {"DISTILLER.TYPE": "GradientKD"},
    "DKD": {"DISTILLER.TYPE": "DKD"},
    "DKD_GKD": {"DISTILLER.TYPE": "DKD", "GKD": {}},
}


def check_loss(description, arrays, method_name):
    if method_name not in METHODS:
        raise NotCovered(f"losses of {method_name}")
    dtype, overflow = known_precision(description["dtype"]), says_overflow(description)
    method = reference_method(method_name, description, arrays["in.logits_student"].shape[1])
    epochs = numbered_epochs(arrays)
    if description["epochs"] != (epochs or None):
        raise Unreadable(f"states epochs {description['epochs']}, its arrays have {epochs or 'none'}")
    target = torch.from_numpy(arrays["in.target"])
    teacher = Output(torch.from_numpy(arrays["in.logits_teacher"]), {})

    def check(name, suffix, loss, logits):
        arrays.compare(f"out.{name}{suffix}", loss, LOSS[dtype], overflow=overflow)
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        of = name.removeprefix("loss_")
        arrays.compare(f"grad.{of}.logits_student{suffix}", gradient, GRADIENT[dtype], overflow=overflow)
        return gradient

    for epoch in epochs or [None]:
        suffix = f"@epoch{epoch}" if epoch else ""
        logits = torch.from_numpy(arrays["in.logits_student"]).requires_grad_()
        schedule = {
            name: torch.tensor(value, dtype=logits.dtype) for name, value in method.schedule(epoch or 1).items()
        }
        losses = method.losses(Output(logits, {}), teacher, Batch((), target, target), schedule)
        for name, loss in losses.items():
            check(f"loss_{name}", suffix, loss, logits)
        gradient = check("loss_total", suffix, sum(losses.values()), logits)
        if f"out.hook_grad_out{suffix}" in arrays:
            arrays.compare(f"out.hook_grad_out{suffix}", gradient, GRADIENT[dtype], overflow=overflow)
    logits = torch.from_numpy(arrays["in.logits_student"]).requires_grad_()
    for name, loss in raw_losses(method, logits, teacher.logits, target).items():
        if f"out.raw.{name}" in arrays:
            check(f"raw.{name}", "", loss, logits)
    return len(arrays.compared)


def raw_losses(method, logits_student, logits_teacher, target):
    """The loss functions of a method by their names in the vectors, without the run's weights and warm-up.

    The gradient of the official gkd function is scaled; those of DKD_GKD's three are not.
    """
    temperature = method.hyperparameters[method.temperature]
    if method.name != "DKD":
        logits = logits_student, logits_teacher
        for transform in method.transforms:
            logits = transform(*logits, Batch((), target, target))
        return {"gkd" if method.transforms else "kd": kd_loss(*logits, temperature)}
    return {
        "dkd": method.distillation_loss(logits_student, logits_teacher, target),
        "tckd": tckd_loss(logits_student, logits_teacher, target, temperature),
        "nckd": nckd_loss(logits_student, logits_teacher, target, temperature),
    }


def numbered_epochs(arrays):
    """The epochs in the names of arrays, NAME@epochE, in their order."""
    return sorted({int(name.partition("@epoch")[2]) for name in arrays if "@epoch" in name})


def reference_method(name, description, num_classes):
    """The method that a case describes, built as a run would build it."""
    keys = METHODS[name]
    hyperparameters = {key: value for key, value in description["hyperparameters"].items() if key != "hard_coded"}
    specification = specification_of({**keys, keys["DISTILLER.TYPE"]: hyperparameters})
    return build_method(specification, Context(num_classes))


def check_integration(description, arrays, method_name):
    """A whole student and teacher with filled weights: losses, logits and gradient norms per parameter."""
    if method_name not in METHODS:
        raise NotCovered(f"losses of {method_name}")
    student, teacher = (network(description[side], description[f"{side}_fill"]) for side in ("student", "teacher"))
    method = reference_method(method_name, description, num_classes=100)
    shape, stream = description["image"]["shape"], description["image"]["s"]
    images, target = filled_images(shape, stream), torch.tensor(description["target"])
    student.train(), teacher.eval()
    epochs, numbered = description["epochs"], numbered_epochs(arrays)
    if not (epochs == numbered if numbered else isinstance(epochs, list) and len(epochs) == 1):
        raise Unreadable(f"states epochs {epochs}, its arrays have {numbered or 'one'}")
    for epoch in map(int, epochs):
        suffix = f"@epoch{epoch}" if numbered else ""
        output = Output(*student(images))
        with torch.no_grad():
            soft = Output(*teacher(images))
        schedule = {name: torch.tensor(value, dtype=torch.float64) for name, value in method.schedule(epoch).items()}
        losses = method.losses(output, soft, Batch((images,), target, target), schedule)
        arrays.compare(f"out.logits_student{suffix}", output.logits, INTEGRATION)
        for name, loss in losses.items():
            arrays.compare(f"out.loss_{name}{suffix}", loss, INTEGRATION)
            gradients = torch.autograd.grad(loss, list(student.parameters()), retain_graph=True)
            norms = [gradient.norm().item() for gradient in gradients]
            arrays.compare(f"grad_l2.{name}{suffix}", norms, INTEGRATION_GRADIENT)
            sums = [gradient.sum().item() for gradient in gradients]
            arrays.compare(f"grad_sum.{name}{suffix}", sums, INTEGRATION_GRADIENT)
    return len(arrays.compared)

"""Losses and their gradients: of given logits and features, and of whole networks."""

import numpy as np
import torch

from distillbench.checks.parity.cases import Mismatch, Unreadable, known_precision, says_overflow
from distillbench.checks.parity.networks import fill, filled_images, network
from distillbench.checks.parity.references import raw_losses, reference_method, require_known, tolerances
from distillbench.methods.base import Batch, Context, Output

LOSS = {"float64": (1e-9, 1e-11), "float32": (1e-5, 2e-6)}  # dtype: (rtol, atol)
GRADIENT = {"float64": (1e-8, 1e-10), "float32": (1e-4, 2e-5)}
INTEGRATION, INTEGRATION_GRADIENT = (1e-8, 1e-10), (1e-7, 1e-10)


def check_loss(description, arrays, method_name):
    require_known(method_name)
    dtype, overflow = known_precision(description["dtype"]), says_overflow(description)
    student, teacher = (given(arrays, side) for side in ("student", "teacher"))
    method = reference_method(method_name, description, arrays, given_context(student, teacher))
    method.to(student["logits_student"].dtype)
    tolerance, of_gradient = tolerances(method, LOSS[dtype], GRADIENT[dtype])
    load_modules(method, arrays)
    epochs = numbered_epochs(arrays)
    if description["epochs"] != (epochs or None):
        raise Unreadable(f"states epochs {description['epochs']}, its arrays have {epochs or 'none'}")
    target = torch.from_numpy(arrays["in.target"])
    leaves = {name: tensor.requires_grad_() for name, tensor in student.items()}
    leaves |= {f"module.{name}": parameter for name, parameter in method.named_parameters()}
    student, teacher = given_output(student), given_output(teacher)

    def check(name, suffix, loss):
        """Compare a loss and those of its gradients that are stated; returns the gradients."""
        compare_loss(arrays, f"out.{name}{suffix}", loss, tolerance, overflow)
        of, gradients = name.removeprefix("loss_"), gradients_of(loss, leaves)
        for leaf, gradient in gradients.items():
            if f"grad.{of}.{leaf}{suffix}" in arrays:
                arrays.compare(f"grad.{of}.{leaf}{suffix}", gradient, of_gradient, overflow=overflow)
        return gradients

    for epoch in epochs or [None]:
        suffix = f"@epoch{epoch}" if epoch else ""
        schedule = {
            name: torch.tensor(value, dtype=student.logits.dtype) for name, value in method.schedule(epoch or 1).items()
        }
        losses = method.losses(student, teacher, Batch((), target, target), schedule)
        for name, loss in losses.items():
            check(f"loss_{name}", suffix, loss)
        total = check("loss_total", suffix, sum(losses.values())) if f"out.loss_total{suffix}" in arrays else {}
        if f"out.hook_grad_out{suffix}" in arrays:
            arrays.compare(f"out.hook_grad_out{suffix}", total["logits_student"], of_gradient, overflow=overflow)
    for name, tensor in method.state_dict().items():
        if f"module_after.{name}" in arrays:
            arrays.compare(f"module_after.{name}", tensor, tolerance)
    if any(name.startswith("out.raw.") for name in arrays):
        for name, loss in raw_losses(method, student, teacher, target).items():
            if f"out.raw.{name}" in arrays:
                check(f"raw.{name}", "", loss)
    return len(arrays.compared)


def given(arrays, side):
    """{name: tensor} of what a case gives of a network: logits_SIDE, SIDE.feats.0, ...; side: student or teacher."""
    names = [name for name in arrays if name == f"in.logits_{side}" or name.startswith(f"in.{side}.")]
    return {name.removeprefix("in."): torch.from_numpy(arrays[name]) for name in names}


def given_output(tensors):
    """The `Output` of a network of what a case gives of it."""
    features = {}
    for name, tensor in tensors.items():
        _, _, feature = name.partition(".")  # "feats.0", "pooled_feat"; "" of the logits
        feature, dot, place = feature.partition(".")
        if dot:
            features.setdefault(feature, {})[int(place)] = tensor
        elif feature:
            features[feature] = tensor
    lists = {name: [maps[i] for i in range(len(maps))] for name, maps in features.items() if isinstance(maps, dict)}
    return Output(next(iter(tensors.values())), features | lists)


def given_context(student, teacher):
    """The context of networks that are nothing but what a case gives of them."""
    student, teacher = given_output(student), given_output(teacher)
    context = Context(student.logits.shape[1])
    context.student, context.teacher = student, teacher
    return context


def load_modules(method, arrays):
    """Give a method's own modules the state that a case states. Raises Mismatch if they have another."""
    names = [name for name in arrays if name.startswith("module.")]
    state = {name.removeprefix("module."): torch.from_numpy(arrays[name]) for name in names}
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        raise Mismatch(f"modules: {' '.join(str(error).split())}") from None


def gradients_of(loss, leaves):
    """{name: gradient} of a loss with respect to the leaves {name: tensor} that it depends on."""
    gradients = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(leaves, gradients, strict=True) if g is not None}


def compare_loss(arrays, name, loss, tolerance, overflow=False):
    """Compare a 0-d loss with one that may be stated as an array of one number."""
    loss = loss.expand(1) if arrays[name].shape == (1,) else loss
    arrays.compare(name, loss, tolerance, overflow=overflow)


def numbered_epochs(arrays):
    """The epochs in the names of arrays, NAME@epochE, in their order."""
    return sorted({int(name.partition("@epoch")[2]) for name in arrays if "@epoch" in name})


def check_integration(description, arrays, method_name):
    """A whole student and teacher with filled weights: losses, logits and gradient norms per parameter."""
    require_known(method_name)
    student, teacher = (network(description[side], description[f"{side}_fill"]) for side in ("student", "teacher"))
    shape, stream = description["image"]["shape"], description["image"]["s"]
    context = Context(100, shape[-1], student_network=student, teacher_network=teacher)
    method = reference_method(method_name, description, arrays, context).double()
    fill(method, description["extra_modules_fill"])
    images, target = filled_images(shape, stream), torch.tensor(description["target"])
    student.train(), teacher.eval()
    parameters = dict(student.named_parameters(prefix="student")) | dict(method.named_parameters())
    value, of_gradient = tolerances(method, INTEGRATION, INTEGRATION_GRADIENT)
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
            compare_loss(arrays, f"out.loss_{name}{suffix}", loss, value)
            gradients = gradients_of(loss, parameters)
            for kind, summary in (("grad_l2", torch.Tensor.norm), ("grad_sum", torch.Tensor.sum)):
                numbers = [summary(gradients[p]).item() if p in gradients else np.nan for p in parameters]
                compare_gradients(arrays, f"{kind}.{name}{suffix}", numbers, of_gradient)
    return len(arrays.compared)


def compare_gradients(arrays, name, numbers, tolerance):
    """Compare a number of each parameter's gradient, NaN where it has none."""
    arrays.compare(name, numbers, tolerance, overflow=bool(np.isnan(numbers).any()))
    if not np.array_equal(np.isnan(numbers), np.isnan(arrays[name])):
        raise Mismatch(f"{name}: another parameter has no gradient than in the reference")

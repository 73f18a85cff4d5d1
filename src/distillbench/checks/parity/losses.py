"""Losses and their gradients: of given logits and features, and of whole networks."""

import numpy as np
import torch

from distillbench.checks.parity.cases import Mismatch, Unreadable, known_precision, says_overflow
from distillbench.checks.parity.networks import fill, filled_images, network
from distillbench.checks.parity.references import (
    give_pairs,
    outputs_of,
    raw_losses,
    reference_method,
    require_known,
    tolerances,
)
from distillbench.engine.networks import LiveTeacher, Student
from distillbench.methods.base import Batch, Context, Output

LOSS = {"float64": (1e-9, 1e-11), "float32": (1e-5, 2e-6)}  # dtype: (rtol, atol)
GRADIENT = {"float64": (1e-8, 1e-10), "float32": (1e-4, 2e-5)}
INTEGRATION, INTEGRATION_GRADIENT = (1e-8, 1e-10), (1e-7, 1e-10)


def check_loss(description, arrays, method_name):
    require_known(method_name)
    dtype, overflow = known_precision(description["dtype"]), says_overflow(description)
    calls = sorted({name.partition(".")[0] for name in arrays if name.startswith("step")})
    calls = [arrays.part(f"{call}.") for call in calls] or [arrays]
    student, teacher = (given(calls[0], side) for side in ("student", "teacher"))
    context = given_context(student, teacher, normalisations(arrays), description["hyperparameters"].get("num_data", 0))
    method = reference_method(method_name, description, arrays, context)
    method.to(student["logits_student"].dtype)
    load_modules(method, arrays)
    epochs = numbered_epochs(arrays)
    if description.get("epochs") != (epochs or None):
        raise Unreadable(f"states epochs {description['epochs']}, its arrays have {epochs or 'none'}")
    for call in calls:
        check_call(method, call, epochs, dtype, overflow)
    return len(arrays.compared)


def check_call(method, arrays, epochs, dtype, overflow):
    """Compare one call of a method in each of the epochs, which all begin with the same modules."""
    tolerance, of_gradient = tolerances(method, LOSS[dtype], GRADIENT[dtype])
    student, teacher = (given(arrays, side) for side in ("student", "teacher"))
    leaves = {name: tensor.requires_grad_() for name, tensor in student.items()}
    leaves |= {f"module.{name}": parameter.requires_grad_() for name, parameter in method.named_parameters()}
    student, teacher, target = given_output(student), given_output(teacher), torch.from_numpy(arrays["in.target"])
    index = torch.from_numpy(arrays["in.index"]) if "in.index" in arrays else target
    if "in.contrastive_index" in arrays:
        give_pairs(method, arrays["in.contrastive_index"])
    made = outputs_of(method)

    def check(name, suffix, loss):
        """Compare a loss and those of its gradients that are stated; returns the gradients."""
        compare_loss(arrays, f"out.{name}{suffix}", loss, tolerance, overflow)
        of, gradients = name.removeprefix("loss_"), gradients_of(loss, leaves)
        for leaf, gradient in gradients.items():
            if f"grad.{of}.{leaf}{suffix}" in arrays:
                arrays.compare(f"grad.{of}.{leaf}{suffix}", gradient, of_gradient, overflow=overflow)
        return gradients

    def check_stated(prefix, tensors):
        for name, tensor in tensors.items():
            if f"{prefix}{name}" in arrays:
                arrays.compare(f"{prefix}{name}", tensor, tolerance)

    for epoch in epochs or [None]:
        suffix = f"@epoch{epoch}" if epoch else ""
        if epoch:
            load_modules(method, arrays)
        schedule = {
            name: torch.tensor(value, dtype=student.logits.dtype) for name, value in method.schedule(epoch or 1).items()
        }
        check_stated("before.", method.state_dict())
        losses = method.losses(student, teacher, Batch((), target, index), schedule)
        for name, loss in losses.items():
            check(f"loss_{name}", suffix, loss)
        total = check("loss_total", suffix, sum(losses.values())) if f"out.loss_total{suffix}" in arrays else {}
        if f"out.hook_grad_out{suffix}" in arrays:
            arrays.compare(f"out.hook_grad_out{suffix}", total["logits_student"], of_gradient, overflow=overflow)
        check_stated("", made)
        method.settle(1, lambda tensor: tensor)
        for prefix in ("after.", "module_after."):
            check_stated(prefix, method.state_dict())
    if any(name.startswith("out.raw.") for name in arrays):
        for name, loss in raw_losses(method, student, teacher, target).items():
            if f"out.raw.{name}" in arrays:
                check(f"raw.{name}", "", loss)


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


def normalisations(arrays):
    """[(weight, bias)] of the teacher's batch normalisations, as far as a case gives them."""
    number = sum(name.startswith("in.teacher_bn.") for name in arrays) // 2
    names = [[f"in.teacher_bn.{i}.{kind}" for kind in ("weight", "bias")] for i in range(number)]
    return [tuple(torch.from_numpy(arrays[name]) for name in pair) for pair in names]


def given_context(student, teacher, teacher_bn, num_images):
    """The context of networks that are nothing but what a case gives of them."""
    student, teacher = given_output(student), given_output(teacher)
    context = Context(student.logits.shape[1], labels=torch.zeros(num_images, dtype=torch.int64))
    context.student, context.teacher, context.teacher_bn = student, teacher, teacher_bn
    return context


def load_modules(method, arrays):
    """Give a method's own modules the state that a case states. Raises Mismatch if they have another."""
    names = [name for name in arrays if name.startswith("module.")]
    state = {name.removeprefix("module."): torch.from_numpy(arrays[name]) for name in names}
    try:
        missing, unexpected = method.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise Mismatch(f"modules: {' '.join(str(error).split())}") from None
    parameters = dict(method.named_parameters())
    if wrong := unexpected + [name for name in missing if name in parameters]:
        raise Mismatch(f"modules: {wrong[0]} is not there in both")


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
    labels = torch.zeros(description.get("num_data", 0), dtype=torch.int64)
    context = Context(100, shape[-1], labels, 0, student, teacher)
    method = reference_method(method_name, description, arrays, context).double()
    fill(method, description["extra_modules_fill"])
    for module, side in ((student, "student"), (teacher, "teacher")):
        fill(module, description[f"{side}_fill"])  # again: building a method may move statistics
    target = torch.tensor(description["target"])
    batch = Batch(
        (filled_images(shape, stream),), target, torch.tensor(description.get("index", description["target"]))
    )
    if "contrastive_index" in description:
        give_pairs(method, description["contrastive_index"])
    parameters = dict(student.named_parameters(prefix="student"))
    parameters |= {name: parameter for name, parameter in method.named_parameters() if parameter.requires_grad}
    networks = Student(student.train(), "fp64"), LiveTeacher(teacher.eval(), "fp64", features=True)
    value, of_gradient = tolerances(method, INTEGRATION, INTEGRATION_GRADIENT)
    epochs, numbered = description["epochs"], numbered_epochs(arrays)
    if not (epochs == numbered if numbered else isinstance(epochs, list) and len(epochs) == 1):
        raise Unreadable(f"states epochs {epochs}, its arrays have {numbered or 'one'}")
    for epoch in map(int, epochs):
        suffix = f"@epoch{epoch}" if numbered else ""
        schedule = {name: torch.tensor(value, dtype=torch.float64) for name, value in method.schedule(epoch).items()}
        (output,), _, losses = method(*networks, batch, schedule)
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

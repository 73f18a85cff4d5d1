"""Sums over an epoch that lie still on the device, and what may be added up."""

import torch

from distillbench.errors import UserError

IMAGES = "images"  # of a batch, beside hits, losses and observations


class Sums:
    """float64 sums by name. The first batch that has a name declares it; from then on its tensor never moves.

    A name counts for an epoch, which `zero` begins, once a batch of the epoch has it.
    """

    def __init__(self, device):
        self.device, self.declared, self.counted = device, {}, set()

    def add(self, values):
        """values: {name: 0-d or 1-d tensor, or number}."""
        for name, value in values.items():
            if name not in self.declared:
                self._declare(name, getattr(value, "shape", ()))
            self.declared[name] += value.detach() if isinstance(value, torch.Tensor) else value
        self.counted |= values.keys()

    def _declare(self, name, shape):
        self.declared[name] = torch.zeros(shape, dtype=torch.float64, device=self.device)

    def zero(self):
        for value in self.declared.values():
            value.zero_()
        self.counted.clear()

    def state_dict(self):
        """{name: tensor} of what counts for the epoch."""
        return {name: value for name, value in self.declared.items() if name in self.counted}

    def load_state_dict(self, state):
        self.zero()
        for name, value in state.items():
            if name not in self.declared:
                self._declare(name, value.shape)
            self.declared[name].copy_(value)
        self.counted |= state.keys()


def batch_sums(task, output, target, losses, observed):
    """{name: what a batch adds to the epoch's sums}: images, losses times images, hits, what the method observed.

    task: the torch half of a task, `tasks.NAME.training`; output: of the first view.
    """
    count = target.shape[0]
    values = {f"loss_{name}": loss * count for name, loss in losses.items()}
    return {**values, IMAGES: count, **task.hits(output, target), **observed}


def averages(task, sums):
    """{name: float} of the sums by name, per image. The only place that reads them back."""
    values = {}
    for name, value in sums.items():
        values |= zip(columns(name, value.shape), value.reshape(-1).tolist(), strict=True)
    images = values.pop(IMAGES)
    return {name: task.per_image(name, value, images) for name, value in values.items()}


def columns(name, shape):
    """The columns of a value: NAME, or NAME_0, NAME_1, ... of a 1-d one."""
    return [f"{name}_{i}" for i in range(shape[0])] if shape else [name]


def check_returned(method, losses, observed, shapes, hits):
    """Raises UserError unless losses and observations can be columns of history.csv; reads back no value.

    method: its name; shapes: {name: shape} of what earlier steps observed, to which this one's are added; hits: the
    names of the task's own sums.
    """
    if not isinstance(losses, dict) or not losses or not isinstance(observed, dict):
        raise UserError(f"{method}: `losses` and `observations` must return dicts, the first with one loss at least")
    for name, loss in losses.items():
        if not is_name(name) or not isinstance(loss, torch.Tensor) or loss.shape != ():
            raise UserError(f"{method}: the loss {name!r} must be a 0-d tensor with a text of one line for its name")
        if not loss.is_floating_point():
            raise UserError(f"{method}: the loss {name!r} is of {loss.dtype}; it must be a real floating-point number")
    if not any(loss.requires_grad for loss in losses.values()):
        raise UserError(f"{method}: no loss depends on what is trained; leave out .detach() and torch.no_grad()")
    for name, value in observed.items():
        shape = tuple(getattr(value, "shape", ()))
        number = isinstance(value, (int, float)) or (isinstance(value, torch.Tensor) and not value.is_complex())
        if not (is_name(name) and number and len(shape) < 2):
            raise UserError(
                f"{method}: the observation {name!r} must be a 1-d or 0-d tensor with a text of one line for its name"
            )
        if shapes.setdefault(name, shape) != shape:
            here, earlier = (f"{s[0]} entries" if s else "one number" for s in (shape, shapes[name]))
            remedy = "return sums over the batch, as many in every batch"
            raise UserError(f"{method}: the observation {name} has {here} and had {earlier} before; {remedy}")
    _check_columns(method, shapes, (IMAGES, *hits))


def _check_columns(method, shapes, metrics):
    """Raises UserError where an observation takes a column of another, of a loss or of a metric."""
    owners = {"loss": "a loss", **dict.fromkeys(metrics, "a metric")}
    for name, shape in shapes.items():
        for column in [name] if name in metrics else columns(name, shape):
            owner = "a loss" if column.startswith("loss_") else owners.setdefault(column, name)
            if owner != name:
                where = f"its column train_{column} of history.csv is that of {owner}"
                raise UserError(f"{method}: an observation is called {name}; {where}; choose another name")


def is_name(value):
    """Whether it can be in the head of a column."""
    return isinstance(value, str) and value != "" and value.isprintable()

"""Sums over an epoch that lie still on the device, and what may be added up."""

import math

import torch

from distillbench.errors import UserError

IMAGES, OBSERVED = "images", "images_observed"  # of a batch, beside hits, losses and observations


class Sums:
    """float64 sums by name. What a batch has is added at once, to the vector of batches that have the same names.

    The first batch with such names declares the vector; from then on it never moves. It counts for an epoch, which
    `zero` begins, once a batch of the epoch was added to it.
    """

    def __init__(self, device):
        self.device, self.stacks, self.counted = device, {}, set()  # stacks: {((name, shape), ...): [sum of sizes]}

    def add(self, values):
        """values: {name: 0-d or 1-d tensor, or number}."""
        rows = [self._row(value) for value in values.values()]
        if len({row.dtype for row in rows}) > 1:
            rows = [row.double() for row in rows]
        names = tuple((name, tuple(getattr(value, "shape", ()))) for name, value in values.items())
        if names not in self.stacks:
            self._declare(names)
        self.stacks[names] += torch.cat(rows)
        self.counted.add(names)

    def _row(self, value):
        if isinstance(value, torch.Tensor):
            return value.detach().reshape(-1)
        return torch.full((1,), value, dtype=torch.float64, device=self.device)

    def _declare(self, names):
        sizes = (math.prod(shape) for _, shape in names)
        self.stacks[names] = torch.zeros(sum(sizes), dtype=torch.float64, device=self.device)

    def zero(self):
        for stack in self.stacks.values():
            stack.zero_()
        self.counted.clear()

    def over(self, group):
        """The sums of all processes of a group."""
        if group.size == 1:
            return self
        whole = Sums("cpu")
        for state in group.collect([(names, stack.cpu()) for names, stack in self.state_dict()]):
            for names, stack in state:
                whole.stacks[names] = whole.stacks.get(names, 0) + stack
                whole.counted.add(names)
        return whole

    def totals(self):
        """{name: tensor} of what counts for the epoch."""
        found = {}
        for names, stack in self.state_dict():
            parts = stack.split([math.prod(shape) for _, shape in names])
            for (name, shape), part in zip(names, parts, strict=True):
                found[name] = found.get(name, 0) + part.reshape(shape)
        return found

    def state_dict(self):
        """[(names with their shapes, vector)] of what counts for the epoch."""
        return [(names, stack) for names, stack in self.stacks.items() if names in self.counted]

    def load_state_dict(self, state):
        """Also a state from before vectors were stacked, {name: tensor}, in which every batch was observed."""
        if isinstance(state, dict):
            state = [_stacked({**state, OBSERVED: state[IMAGES]})] if state else []
        self.zero()
        for names, saved in state:
            names = tuple((name, tuple(shape)) for name, shape in names)
            if names not in self.stacks:
                self._declare(names)
            self.stacks[names].copy_(saved)
            self.counted.add(names)


def _stacked(state):
    return [(name, value.shape) for name, value in state.items()], torch.cat([v.reshape(-1) for v in state.values()])


def batch_sums(task, output, target, losses, observed=None):
    """{name: what a batch adds to the epoch's sums}: images, losses times images, hits, what the method observed.

    task: the torch half of a task, `tasks.NAME.training`; output: of the first view; observed: None of a batch that is
    not observed.
    """
    count = torch.full((), target.shape[0], dtype=output.logits.dtype, device=target.device)
    values = {f"loss_{name}": loss * count for name, loss in losses.items()}
    values |= {IMAGES: count, **task.hits(output, target)}
    return values if observed is None else {**values, OBSERVED: count, **observed}


def averages(task, sums):
    """{name: float} per image, of `Sums`; of what was observed, per observed image. The only place that reads them
    back.
    """
    values, observed = {}, set()
    for name, value in sums.totals().items():
        found = dict(zip(columns(name, value.shape), value.reshape(-1).tolist(), strict=True))
        values |= found
        if name not in (IMAGES, OBSERVED, *task.HITS) and not name.startswith("loss_"):
            observed |= found.keys()
    images = {True: values.pop(OBSERVED, 0), False: values.pop(IMAGES)}
    return {name: task.per_image(name, value, images[name in observed]) for name, value in values.items()}


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
    _check_columns(method, shapes, (IMAGES, OBSERVED, *hits))


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

"""What learns in a run: student, frozen teacher, method and trainer, and the step that joins them."""

import torch
import torch.nn as nn

from distillbench.config import components
from distillbench.engine.streams import initialisation
from distillbench.engine.trainers import build_trainer
from distillbench.errors import UserError
from distillbench.methods import build_method
from distillbench.methods.base import Context, Output
from distillbench.models import build_network

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "tf32": torch.float32}
METRICS = ("images", "top1", "top5")  # of a batch, beside losses and observations
EVALUATION_BATCH = {"cpu": 128}  # what fits a core's cache; elsewhere 1024


class Learner:
    """student, method: trained modules; teacher: frozen module or None; trainer: turns losses into updates."""

    def __init__(self, specification, num_images, teacher=None, device="cpu"):
        """teacher: the frozen network where the specification names one."""
        dataset = components.datasets()[specification["dataset"]["name"]]
        student, seed = specification["student"]["network"], specification["seed"]
        teacher_network = specification.teacher_network if specification["teacher"] else None
        context = method_context(dataset, num_images, student, teacher_network)
        with initialisation(seed, "student"):
            self.student = build_network(student, dataset["num_classes"])
        with initialisation(seed, "method"):
            self.method = build_method(specification, context)
        dtype = DTYPES[specification["precision"]]
        for module in (self.student, self.method, *filter(None, [teacher])):
            module.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        self.teacher, self.name = teacher, specification["method"]["name"]
        self.observed = {}  # the shapes of what the method has observed
        parameters = [*self.student.parameters(), *self.method.parameters()]
        self.trainer = build_trainer(specification, parameters)
        names = self.method.schedule(1)
        self.schedule = {name: torch.zeros((), dtype=dtype, device=device) for name in names}

    def outputs(self, batch):
        """(student's, teacher's) outputs of a batch: an `Output` each, or tuples of them with several views."""
        students, teachers = tuple(Output(*self.student(view)) for view in batch.views), None
        if self.teacher is not None:
            with torch.no_grad():
                teachers = tuple(Output(*self.teacher(view)) for view in batch.views)
        return (students, teachers) if len(students) > 1 else (students[0], teachers and teachers[0])

    def step(self, batch, sums):
        """One update; adds the batch's metrics to `sums`. Nothing in here waits for the device."""
        students, teachers = self.outputs(batch)
        losses = self.method.losses(students, teachers, batch, self.schedule)
        observed = self.method.observations(students, teachers, batch, losses)
        check_returned(self.name, losses, observed, self.observed)
        self.trainer.update(losses)
        logits = (students if isinstance(students, Output) else students[0]).logits.detach()
        add_metrics(sums, {name: loss.detach() for name, loss in losses.items()}, logits, batch.target, observed)

    def set_epoch(self, epoch, lr):
        """Put the epoch's learning rate and the method's schedule into the tensors that the step reads."""
        self.trainer.lr.fill_(lr)
        values = self.method.schedule(epoch)
        if values.keys() != self.schedule.keys():
            here, first = (", ".join(map(str, side)) or "nothing" for side in (values, self.schedule))
            remedy = "give the same names in every epoch"
            raise UserError(f"{self.name}: schedule({epoch}) gives {here}, schedule(1) {first}; {remedy}")
        for name, value in values.items():
            self.schedule[name].fill_(value)

    def train(self):
        """Training mode for what is trained; the teacher stays in evaluation mode."""
        self.student.train()
        self.method.train()
        if self.teacher is not None:
            self.teacher.eval()

    def state_dict(self):
        return {name: getattr(self, name).state_dict() for name in ("student", "method", "trainer")}

    def load_state_dict(self, state):
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


def method_context(dataset, num_images, student, teacher):
    """`Context` for a method. Blank images give the shapes: the meta device would import a compiler, for seconds."""

    @torch.inference_mode()
    def shapes(network):
        with initialisation(0, "shapes"):
            module = build_network(network, dataset["num_classes"]).eval()
        logits, features = module(torch.zeros(2, 3, dataset["image_size"], dataset["image_size"]))
        return Output(logits.to("meta"), {name: _on_meta(feature) for name, feature in features.items()})

    return Context(dataset["num_classes"], num_images, shapes(student), shapes(teacher) if teacher else None)


def _on_meta(feature):
    return feature.to("meta") if isinstance(feature, torch.Tensor) else [_on_meta(entry) for entry in feature]


def add_metrics(sums, losses, logits, target, observed=None):
    """Add a batch to the sums (float64 by name): images, losses times images, hits, what the method observed.

    A batch without a name that others of the epoch have adds nothing to it.
    """
    count = target.shape[0]
    rank = target_rank(logits, target)
    values = {f"loss_{name}": loss * count for name, loss in losses.items()}
    values |= {"images": count, "top1": (rank < 1).sum(), "top5": (rank < 5).sum()}
    values |= observed or {}
    for name, value in values.items():
        if name not in sums:
            sums[name] = torch.zeros(getattr(value, "shape", ()), dtype=torch.float64, device=logits.device)
        sums[name] += value.detach() if isinstance(value, torch.Tensor) else value


def check_returned(method, losses, observed, shapes):
    """Raises UserError unless losses and observations can be columns of history.csv; reads back no value.

    method: its name; shapes: {name: shape} of what earlier steps observed, to which this one's are added.
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
    owners = {"loss": "a loss", **dict.fromkeys(METRICS, "a metric")}
    for name, shape in shapes.items():
        for column in [name] if name in METRICS else columns(name, shape):
            owner = "a loss" if column.startswith("loss_") else owners.setdefault(column, name)
            if owner != name:
                where = f"its column train_{column} of history.csv is that of {owner}"
                raise UserError(f"{method}: an observation is called {name}; {where}; choose another name")


def is_name(value):
    """Whether it can be in the head of a column."""
    return isinstance(value, str) and value != "" and value.isprintable()


def columns(name, shape):
    """The columns of a value: NAME, or NAME_0, NAME_1, ... of a 1-d one."""
    return [f"{name}_{i}" for i in range(shape[0])] if shape else [name]


def target_rank(logits, target):
    """[N]: how many classes come before the label; of classes with equal logits the one with the smaller number.

    It decides every accuracy, of histories and predictions, so that devices and tables cannot differ in ties.
    """
    own, classes = logits.gather(1, target[:, None]), torch.arange(logits.shape[1], device=logits.device)
    return ((logits > own) | ((logits == own) & (classes < target[:, None]))).sum(dim=1)


@torch.inference_mode()
def evaluate(network: nn.Module, resident):
    """Metric sums over a split, in evaluation mode. resident: `feed.Resident` without padding."""
    network.eval()
    sums = {}
    for logits, target in evaluation_logits(network, resident):
        add_metrics(sums, {"ce": nn.functional.cross_entropy(logits, target)}, logits, target)
    return sums


def evaluation_logits(network, resident):
    """Yield (logits, labels) in the order of the split, in large batches."""
    size = EVALUATION_BATCH.get(resident.labels.device.type, 1024)
    for start in range(0, len(resident.labels), size):
        stop = start + size
        yield network(resident.normalised(resident.images[start:stop]))[0], resident.labels[start:stop]


def averages(sums):
    """{name: float} of metric sums, per image, hits in percent. The only place that reads them back."""
    values = {}
    for name, value in sums.items():
        values |= zip(columns(name, value.shape), value.reshape(-1).tolist(), strict=True)
    images = values.pop("images")
    return {name: (100 * value if name in ("top1", "top5") else value) / images for name, value in values.items()}

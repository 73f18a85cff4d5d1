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
        self.teacher = teacher
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
        self.trainer.update(losses)
        logits = (students if isinstance(students, Output) else students[0]).logits.detach()
        add_metrics(sums, {name: loss.detach() for name, loss in losses.items()}, logits, batch.target, observed)

    def set_epoch(self, epoch, lr):
        """Put the epoch's learning rate and the method's schedule into the tensors that the step reads."""
        self.trainer.lr.fill_(lr)
        for name, value in self.method.schedule(epoch).items():
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
    """Add a batch to the sums (float64 by name): images, losses times images, hits, what the method observed."""
    count = target.shape[0]
    rank = target_rank(logits, target)
    values = {f"loss_{name}": loss * count for name, loss in losses.items()}
    values |= {"images": count, "top1": (rank < 1).sum(), "top5": (rank < 5).sum()}
    for name, value in (observed or {}).items():
        if name in values:
            raise UserError(f"a method's observation is called {name}, which is a metric's name; choose another")
        values[name] = value
    for name, value in values.items():
        if name not in sums:
            sums[name] = torch.zeros(getattr(value, "shape", ()), dtype=torch.float64, device=logits.device)
        sums[name] += value


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
        entries = value.tolist()
        values |= {name: entries} if value.dim() == 0 else {f"{name}_{i}": entry for i, entry in enumerate(entries)}
    images = values.pop("images")
    return {name: (100 * value if name in ("top1", "top5") else value) / images for name, value in values.items()}

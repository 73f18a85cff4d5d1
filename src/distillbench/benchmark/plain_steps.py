"""R0 and the rungs that are its loop with one argument changed."""

import torch

from distillbench.benchmark import plain
from distillbench.benchmark.experiment import DATASET, EPOCH, feed_of, parts, student_of, teacher_of
from distillbench.benchmark.steps import Loading
from distillbench.config import components
from distillbench.engine.streams import initialisation
from distillbench.methods import build_method
from distillbench.methods.base import Batch, Context, Output


class Plain(Loading):
    """`plain.train` with torchvision's loader, or where the data are resident with the engine's feed."""

    def __init__(self, job):
        super().__init__(job)
        torch.backends.cudnn.benchmark = True
        if job.rung.threads:
            torch.set_num_threads(job.rung.threads)
        specification, options = job.specification, job.rung.options
        self.feed, self.resident = feed_of(job, specification), options.get("resident", False)
        student, teacher = student_of(job), teacher_of(job)
        method = _method(specification, student, teacher, self.feed.labels)
        memory = torch.channels_last if options.get("channels_last") else torch.contiguous_format
        for module in (student, teacher, method):
            module.to(self.device, memory_format=memory)
        parameters = [p for module in (student, method) for p in module.parameters() if p.requires_grad]
        losses, update = _losses(method, self.device), _update(specification, parameters, options.get("fused"))
        self.arguments = (student, teacher, losses, update, self.device, memory)
        self.read_back = options.get("read_back", True)

    def losses(self, size):
        return (loss for _, loss in plain.train(self._drawn(size), *self.arguments))

    def steps(self, size):
        batches = self._drawn(size) if self.resident else plain.endless(self._loader(size))
        return (count for count, _ in plain.train(batches, *self.arguments, self.read_back))

    def _loader(self, size):
        self.job.archive.declare(plain.Images)
        return plain.loader(self.job.archive.root, size, self.workers, pinned=self.device.type == "cuda")

    def _drawn(self, size):
        """Batches of the engine's feed, as the loader's are."""
        for count in parts(self.feed, self.feed.begin, size):
            batch = self.feed.batch(count)
            self.feed.advance(count)
            yield *batch.views, batch.target, batch.index


def _method(specification, student, teacher, labels):
    declared = components.datasets()[DATASET]
    context = Context(declared["num_classes"], declared["image_size"], labels, specification["seed"], student, teacher)
    with initialisation(specification["seed"], "method"):
        return build_method(specification, context)


def _losses(method, device):
    """The method's own formula of the losses, as a function for `plain.train`."""
    schedule = {name: torch.tensor(float(value), device=device) for name, value in method.schedule(EPOCH).items()}

    def losses(student, teacher, images, target, index):
        return method.losses(Output(*student), Output(*teacher), Batch((images,), target, index), schedule)

    return losses


def _update(specification, parameters, fused):
    schedule = specification["schedule"]
    if specification["trainer"]["name"] == "dot":
        return plain.dot_optimizer(parameters, schedule, specification.parameters("trainer")["DELTA"], fused)
    return plain.optimizer(parameters, schedule, fused)

"""What learns in a run: student, frozen teacher, method and trainer, and the step that joins them."""

from contextlib import nullcontext

import torch

from distillbench import tasks
from distillbench.config import components
from distillbench.engine.feed import DTYPES
from distillbench.engine.micro_batches import Accumulation
from distillbench.engine.networks import LiveTeacher, Student, TableTeacher
from distillbench.engine.streams import drawing_from, initialisation
from distillbench.engine.sums import Sums, averages, batch_sums, check_returned
from distillbench.engine.weights import weights_digest
from distillbench.errors import RunFailed, UserError
from distillbench.group import Alone
from distillbench.methods import build_method
from distillbench.methods.base import Context, Output, of_views
from distillbench.models import build_network
from distillbench.store.tables import replaces_teacher
from distillbench.trainers import build_trainer


class Learner:
    """student, method: trained modules; teacher: frozen module or None; trainer: turns losses into updates.

    deployed: the network that the run leaves; sums: what the steps of an epoch add up to; draws: whether the student
    draws random numbers in a step, which then is no replay.
    """

    def __init__(self, specification, feed, teacher=None, table=None, group=None):
        """feed: `feed.Feed` of the training images; teacher: the frozen network where the specification names one;
        table: its logits [N, V, C], fp32, on the feed's device, which are looked up in place of asking it;
        group: the processes that share the micro-batches of every step.
        """
        self.group, self.statistics = group or Alone(), specification["batch"]["statistics"]
        dataset = components.datasets()[specification["dataset"]["name"]]
        self.seed, self.feed, self.teacher = specification["seed"], feed, teacher
        with initialisation(self.seed, "student"):
            self.student = build_network(specification["student"]["network"], dataset["name"])
        self.draws = getattr(self.student, "draws_in_training", False)
        context = (dataset["num_classes"], dataset["image_size"], feed.labels, self.seed, self.student, teacher)
        with initialisation(self.seed, "method"):
            self.method = build_method(specification, Context(*context))
        dtype = DTYPES[specification["precision"]]
        for module in filter(None, (self.student, self.method, teacher)):
            module.to(device=feed.device, dtype=dtype, memory_format=torch.channels_last)
        self.deployed, self.name = self.method.deployed(self.student), specification["method"]["name"]
        precision, features = specification["precision"], self.method.teacher == "network"
        feed.label_smoothing = specification.label_smoothing
        if table is not None:
            feed.number_views()
        # as a table has it, which may stand in its place
        exact = "fp32" if replaces_teacher(specification) else precision
        live = teacher and LiveTeacher(teacher, exact, features)
        self.callables = Student(self.student, precision), live if table is None else TableTeacher(table, live)
        self.task = tasks.part(specification["task"], "training")
        parameters = [p for module in (self.student, self.method) for p in module.parameters() if p.requires_grad]
        self.trainer = build_trainer(specification, parameters)
        self.schedule = {name: torch.zeros((), dtype=dtype, device=feed.device) for name in self.method.schedule(1)}
        self.sums, self.observed = Sums(feed.device), {}  # observed: shapes of what the method has observed

    def step(self, size, observing=True):
        """One update with the next `size` images of the feed. Nothing in here waits for the device.

        observing: whether the method's observations of this batch go into the sums.
        """
        step = Accumulation((self.student, self.method), size, self.statistics, self.group)
        for part in step.parts:
            step.add(part, *self._computed(part, observing))
        gradients, sums = step.total()
        self.trainer.descend(*gradients)
        self.method.settle(len(step.parts), step.gather)
        self.sums.add(sums)
        self.feed.advance(size)

    def _computed(self, part, observing):
        """(gradients, sums) of a micro-batch, whose graph goes with the end of this."""
        batch = self.feed.batch(part.size, part.offset)
        with self._drawing(part):
            students, teachers, losses = self.method(*self.callables, batch, self.schedule)
        batch.labels.require_read(self.name, losses)
        observed = self.method.observations(*of_views(students, teachers), batch, losses) if observing else {}
        check_returned(self.name, losses, observed, self.observed, self.task.HITS)
        sums = batch_sums(self.task, students[0], batch.target, losses, observed if observing else None)
        return self.trainer.gradients(losses), sums

    def _drawing(self, part):
        """What a student draws in a step is a function of the seed and of the first image's place in the epochs."""
        if not self.draws:
            return nullcontext()
        place = self.feed.passed + part.offset
        return drawing_from(self.seed, "step", self.feed.epoch, place, device=self.feed.device)

    def begin(self, epoch, lr, position=0):
        """Go to a position in an epoch: its order of images, learning rate and schedule, in tensors of the step."""
        self.feed.begin(epoch, position)
        if not position:
            self.sums.zero()
        self.trainer.lr.fill_(lr)
        values = self.method.schedule(epoch)
        if values.keys() != self.schedule.keys():
            here, first = (", ".join(map(str, side)) or "nothing" for side in (values, self.schedule))
            remedy = "give the same names in every epoch"
            raise UserError(f"{self.name}: schedule({epoch}) gives {here}, schedule(1) {first}; {remedy}")
        for name, value in values.items():
            self.schedule[name].fill_(value)
        self.train()

    def train(self):
        """Training mode for what is trained; the teacher stays in evaluation mode."""
        self.student.train()
        self.method.train()
        if self.teacher is not None:
            self.teacher.eval()

    @torch.inference_mode()
    def evaluate(self, split):
        """{name: float}: loss on the labels and hits of the deployed network over a `feed.Split`, per image."""
        sums, network = Sums(self.feed.device), self.deployed.eval()
        for images, target in split.batches(self.group.rank, self.group.size):
            output = Output(*network(images))
            sums.add(batch_sums(self.task, output, target, self.task.label_losses(output, target)))
        return averages(self.task, sums.over(self.group))

    def require_agreement(self):
        """Raises RunFailed unless all processes that train the run have come to the same weights."""
        if self.group.size == 1:
            return
        digests = self.group.collect([weights_digest(module.state_dict()) for module in (self.student, self.method)])
        if any(digest != digests[0] for digest in digests):
            remedy = f"a buffer that {self.name} or the network writes in a step has to move in `Method.settle`"
            raise RunFailed(f"the {self.group.size} processes have come to different weights: {remedy}")

    def statics(self):
        """All tensors that a step keeps for the next one: from the first step on they never move."""
        modules = (tensor for module in (self.student, self.method) for tensor in module.state_dict().values())
        own = (*self.schedule.values(), *self.sums.stacks.values(), *self.feed.plan.values(), self.feed.position)
        return [*modules, *self.trainer.statics(), *own]

    def state_dict(self):
        return {name: getattr(self, name).state_dict() for name in ("student", "method", "trainer")}

    def load_state_dict(self, state):
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)

"""The engine's own step, with everything that a run records."""

from distillbench.benchmark.experiment import EPOCH, TABLE, feed_of, parts, table_header, teacher_of
from distillbench.benchmark.steps import Steps
from distillbench.engine.device import prepare_device, require_precision
from distillbench.engine.drivers import drive
from distillbench.engine.learner import Learner
from distillbench.engine.loop import OBSERVED_EVERY
from distillbench.engine.replay import Recording, untouched
from distillbench.engine.table import read_table


class Engine(Steps):
    """A `Learner` under a driver, its teacher live or a table."""

    def __init__(self, job):
        super().__init__(job)
        specification = job.specification
        self.device = prepare_device(specification, job.device)
        require_precision(job.rung.precision, self.device)
        feed, teacher, table = feed_of(job, specification), teacher_of(job), None
        if job.rung.table:
            table = read_table(job.folder / TABLE, table_header(specification, teacher, feed)).to(self.device)
        self.lr = specification["schedule"]["LR"]
        self.learner = Learner(specification, feed, teacher, table)
        self.driver = drive(self.learner, job.rung.options["driver"], report=lambda _: None)

    def steps(self, size):
        """Yield the number of images of each step: the method observes those that it does in a run."""
        sizes = parts(self.learner.feed, lambda epoch: self.learner.begin(epoch, self.lr), size)
        for number, images in enumerate(sizes):
            self.driver.step(images, observing=number % OBSERVED_EVERY == 0)
            yield images

    def losses(self, size):
        for images in self.steps(size):
            totals = self.learner.sums.totals().items()
            yield sum(total.item() for name, total in totals if name.startswith("loss_")) / images
            self.learner.sums.zero()

    def operations(self):
        """{"observed", "not observed"}: operations that compute, of a step on a batch that is observed or not."""
        self.learner.begin(EPOCH, self.lr)
        counts = {}
        for name, observing in (("observed", True), ("not observed", False)):
            with untouched(self.learner), Recording() as recording:
                self.learner.step(self.job.size.batch, observing)
            counts[name] = len(recording.computing)
        return counts

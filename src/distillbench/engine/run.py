"""One training run, teacher or student, from its specification to its finished directory."""

from contextlib import contextmanager, nullcontext
from pathlib import Path

from distillbench.config.implemented import require_trainable
from distillbench.config.kinds import COUNTS, DIGESTS
from distillbench.config.specification import PUBLISHED
from distillbench.data import trained_on
from distillbench.engine.device import effective_precision, prepare_device, require_precision
from distillbench.engine.drivers import drive
from distillbench.engine.flight import Flight, finish
from distillbench.engine.learner import Learner
from distillbench.engine.loop import train_epochs
from distillbench.engine.micro_batches import notes, require_fit
from distillbench.engine.record import Stopwatch, write_run
from distillbench.engine.stream import DecodingFailed, feed_of, put
from distillbench.engine.teacher import teacher_source
from distillbench.engine.weights import load_teacher
from distillbench.errors import UserError
from distillbench.group import Alone
from distillbench.store.claim import claim
from distillbench.store.layout import finished
from distillbench.store.place import arriving, bring, discard
from distillbench.store.record import read_record


def train(
    specification,
    images,
    out,
    work,
    runs,
    device="auto",
    driver="auto",
    deterministic=False,
    save_seconds=30.0,
    source=None,
    report=print,
    logger=nullcontext,
    again=False,
    table="auto",
    group=None,
    workers=None,
):
    """Train a run, or go on where an earlier process stopped: the result is the same.

    specification: `Specification`; images: `data.Images`; out: the run's directory, which becomes complete at
    the end; work: directory of the state in flight; runs: folder of all runs, where the teacher lies;
    driver: of `drivers.DRIVERS`; deterministic: see `device.prepare_device`;
    save_seconds: at most so much work is lost if the process is killed; source: for the record;
    report: called with a line of text an epoch; logger: gives a context manager of a function that is called with
    each line of history.csv, {name: number}, or of None; again: also where the run is finished, which stays as it is
    until the new realisation is complete; table: "never" for a live teacher where a table of its logits could be used;
    group: `group.Processes` of which this one is one; all call this, the others once the first has told that it is
    ready (see `jobs.train`), and the first alone writes; workers: as of `stream.put`.
    Raises UserError if the teacher is missing or another than meant, or if this code does not do what the
    specification says; RunFailed if a loss is not finite.
    """
    require_trainable(specification)
    require_images(specification, images)
    group = group or Alone()
    first = group.rank == 0
    require_fit(specification["batch"], group)
    with claim(work, report=report) if first else nullcontext():
        if first and not begins(specification, out, work, runs, again):
            return group.tell(False)
        device = prepare_device(specification, group.device(device), deterministic)
        require_precision(specification["precision"], device)
        training, evaluated = splits(specification, images, device, workers)
        teacher, teacher_digest = load_teacher(specification, runs)
        inputs = {"dataset": images.digest, "teacher": teacher_digest}
        flight = Flight(work, specification, inputs, save_seconds, writes=first)
        begun = flight.teacher_source(report)
        logits = teacher_source(specification, teacher_digest, Path(runs).parent, device, begun, table, report)
        feed = feed_of(training, specification, group)
        learner = Learner(specification, feed, teacher, logits.table, group)
        for line in (*learner.method.notes(), *notes(specification["batch"], len(feed))):
            report(line)
        driver = drive(learner, driver, report)
        progress = flight.resume(learner, report, logits.kind, logits.why)
        if first:
            group.tell(True)
        watch = Stopwatch(progress.seconds, device, specification["schedule"]["EPOCHS"] * len(learner.feed))
        with logger() as log, torch_refusals(deterministic), kept_if_damaged(flight, learner, progress, watch):
            train_epochs(specification, learner, driver, evaluated, progress, flight, watch, report, log)
        how = {
            "driver": driver.name,
            "why": driver.why,
            "precision": effective_precision(specification["precision"], device),
            "deterministic": deterministic,
            "processes": group.size,
            "teacher_source": progress.teacher_source,
            "why_live": progress.why_live or None,
        }
        left = (specification, learner.deployed, progress, teacher_digest, flight.attempts, watch, source, how)
        group.tell()  # all have read the state of an earlier attempt, which the first removes now
        if first:
            finish(work, out, lambda folder: write_run(folder, *left, images.origin))


def begins(specification, out, work, runs, again):
    """Whether there is anything to train, once what an attempt left that was killed at its very end is in place."""
    require_arriving(specification, work)
    anew = again and arrives_outdated(specification, work, runs)
    if bring(work, out) and not anew:
        return False
    if finished(out) and not again:
        discard(work)
        return False
    return True


def splits(specification, images, device, workers=None):
    """(images that a run trains on, images that each epoch ends with), each a `feed.Split` on the device."""
    protocol, training = specification["dataset"]["protocol"], put(images.training, specification, device, workers)
    if protocol == PUBLISHED:
        return training, put(images.test, specification, device, workers)
    chosen = trained_on(images.train_labels, protocol)
    return training.part(chosen), training.part(~chosen)


@contextmanager
def kept_if_damaged(flight, learner, progress, watch):
    """Inside, an image that cannot be decoded, which is met between two steps, ends the run with its state saved."""
    try:
        yield
    except DecodingFailed:
        flight.save(learner, progress, watch.seconds())
        raise


@contextmanager
def torch_refusals(deterministic):
    """Raises UserError where torch refuses an operation that adds in its own order, or the variance of one image."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            problem = "the last batch of an epoch has one image, of which batch normalisation has no variance"
            raise UserError(f"SOLVER.BATCH_SIZE: {problem}; choose another") from None
        raise
    except RuntimeError as error:
        if deterministic and "deterministic" in str(error):
            reason = str(error).partition("You can turn")[0].strip().rstrip(".")
            raise UserError(f"--deterministic: {reason:.200}; leave it out") from None
        raise


def require_arriving(specification, work):
    """Raise UserError if finished files of another run are on their way from a work directory to their place."""
    record = arriving(work)
    if record and record["run"] != specification.id:
        raise UserError(f"{work}: holds the finished files of {record['run']}; choose another --work")


def arrives_outdated(specification, work, runs):
    """Whether finished files on their way to their place were made with other weights than the teacher has now."""
    record, teacher = arriving(work), specification.teacher_id
    if not (record and teacher):
        return False
    now = read_record(Path(runs) / teacher / "record.json")["weights"]
    return record["teacher_weights"] != now[specification["teacher"]["checkpoint"]]


def require_images(specification, images):
    """Raise UserError unless images are those whose digests, or else numbers, the specification names."""
    for field in (field for field in DIGESTS if field in specification["dataset"]):
        facts = images.facts if field in COUNTS else images.origin
        stated, found = specification["dataset"][field], facts.get(field)
        if found != stated:
            what = field if field in COUNTS else "digest"
            here, asked = (str(value)[:12] for value in (found, stated))
            name = specification["dataset"]["name"]
            raise UserError(f"{specification.id}: {name} has the {what} {here} here, {asked} is asked for")

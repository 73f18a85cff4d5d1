"""One training run, teacher or student, from its specification to its finished directory."""

import ctypes
from contextlib import nullcontext
from pathlib import Path

import torch

from distillbench.config import components
from distillbench.config.implemented import require_trainable
from distillbench.engine.feed import Resident, epoch_plan, fetch
from distillbench.engine.flight import Flight, finish
from distillbench.engine.learner import DTYPES, Learner, averages, evaluate
from distillbench.engine.record import Stopwatch, write_run
from distillbench.engine.weights import load_teacher
from distillbench.errors import RunFailed, UserError
from distillbench.store.claim import claim
from distillbench.store.layout import finished
from distillbench.store.place import arriving, bring, discard
from distillbench.store.record import read_record

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def train(
    specification,
    images,
    out,
    work,
    runs,
    device="auto",
    save_seconds=30.0,
    source=None,
    report=print,
    logger=nullcontext,
    again=False,
):
    """Train a run, or go on where an earlier process stopped: the result is the same.

    specification: `Specification`; images: `data.Images`; out: the run's directory, which becomes complete at
    the end; work: directory of the state in flight; runs: folder of all runs, where the teacher lies;
    save_seconds: at most so much work is lost if the process is killed; source: for the record;
    report: called with a line of text an epoch; logger: gives a context manager of a function that is called with
    each line of history.csv, {name: number}, or of None; again: also where the run is finished, which stays as it is
    until the new realisation is complete.
    Raises UserError if the teacher is missing or another than meant, or if this code does not do what the
    specification says; RunFailed if a loss is not finite.
    """
    require_trainable(specification)
    require_images(specification, images)
    with claim(work, report=report):
        require_arriving(specification, work)
        anew = again and arrives_outdated(specification, work, runs)
        if bring(work, out) and not anew:  # of an attempt that was killed while it did that
            return
        if finished(out) and not again:
            return discard(work)
        device = prepare_device(specification, device)
        training, test = put_images(specification, images, device)
        teacher, teacher_digest = load_teacher(specification, runs)
        learner = Learner(specification, len(training.labels), teacher, device)
        inputs = {"dataset": images.digest, "teacher": teacher_digest}
        flight = Flight(work, specification, inputs, save_seconds)
        progress = flight.resume(learner, report)
        num_epochs = specification["schedule"]["EPOCHS"]
        watch = Stopwatch(progress.seconds, device, num_epochs * len(training.labels))
        with logger() as log:
            while progress.epoch <= num_epochs:
                train_epoch(specification, learner, training, progress, flight, watch)
                row = epoch_row(specification, progress, evaluate(learner.student, test))
                progress.end_epoch(row, learner.student)
                flight.save_sometimes(learner, progress, watch.seconds())
                flight.report(progress)
                report(epoch_line(row, num_epochs, watch))
                if log:
                    log(row)
        left = (specification, learner.student, progress, teacher_digest, flight.attempts, watch, source)
        finish(work, out, lambda folder: write_run(folder, *left))


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


def train_epoch(specification, learner, training, progress, flight, watch):
    """Train on what is left of the epoch at `progress`, the last and smaller batch included."""
    views, batch_size, num_images = (
        specification["views"],
        specification["batch"]["size"],
        len(training.labels),
    )
    plan = epoch_plan(specification["seed"], progress.epoch, num_images, views["count"], views["augmentation"])
    plan = plan.to(training.labels.device)
    learner.set_epoch(progress.epoch, learning_rate(specification["schedule"], progress.epoch))
    learner.train()
    while progress.position < num_images:
        start, stop = progress.position, min(progress.position + batch_size, num_images)
        learner.step(fetch(training, plan, start, stop), progress.sums)
        progress.position = stop
        flight.save_sometimes(learner, progress, watch.seconds())


def learning_rate(schedule, epoch):
    """The rate in an epoch (from 1 on): LR, times LR_DECAY_RATE for each stage that is behind it."""
    return schedule["LR"] * schedule["LR_DECAY_RATE"] ** sum(epoch > stage for stage in schedule["LR_DECAY_STAGES"])


def epoch_row(specification, progress, test_sums):
    """The epoch's line of history.csv. Raises RunFailed unless every number in it is finite."""
    train, test = averages(progress.sums), averages(test_sums)
    row = {"epoch": progress.epoch, "lr": learning_rate(specification["schedule"], progress.epoch)}
    row["train_loss"] = sum(value for name, value in train.items() if name.startswith("loss_"))
    row |= {f"train_{name}": value for name, value in train.items()}
    row |= {f"test_{name}": value for name, value in test.items()}
    for name, value in row.items():
        if not abs(value) < float("inf"):
            raise RunFailed(f"{name} is {value} in epoch {progress.epoch}")
    return row


def epoch_line(row, num_epochs, watch):
    return (
        f"epoch {row['epoch']}/{num_epochs}  lr {row['lr']:.4g}  loss {row['train_loss']:.4f}"
        f"  train {row['train_top1']:.2f}  test {row['test_top1']:.2f}  {watch.seconds():.0f} s"
    )


def require_images(specification, images):
    """Raise UserError unless images are those whose digest the specification names."""
    stated = specification["dataset"]["sha256"]
    if images.digest != stated:
        name, found = specification["dataset"]["name"], images.digest
        raise UserError(f"{specification.id}: {name} has the digest {found[:12]} here, {stated[:12]} is asked for")


def put_images(specification, images, device):
    """(training, test): both splits on the device, the training images padded for their crops."""
    declared = components.datasets()[specification["dataset"]["name"]]
    dtype, padding = (
        DTYPES[specification["precision"]],
        specification["views"]["augmentation"]["crop_padding"],
    )
    training = Resident.put(images.train_images, images.train_labels, declared, device, dtype, padding)
    return training, Resident.put(images.test_images, images.test_labels, declared, device, dtype)


def prepare_device(specification, device):
    """Set threads and arithmetic as the specification says; the torch device ("auto": CUDA if there is one).

    Raises UserError for a device that is not here.
    """
    torch.set_num_threads(specification["threads"])
    precision = "tf32" if specification["precision"] == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = precision
    torch.backends.cuda.matmul.fp32_precision = precision
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()  # not on "meta"
    except Exception as error:  # of half a dozen types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--device {device}: not usable here ({reason:.200}); cpu always is") from None
    if found.type == "cpu":
        keep_freed_memory()
    return found


def keep_freed_memory():
    """Let glibc reuse a step's large blocks: by default it returns them to the system and gets them anew, page by
    page, which took a tenth of a small network's training time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # glibc
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)

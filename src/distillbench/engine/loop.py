"""The training loop: epochs of steps, each with a line of history.csv."""

import math

from distillbench import tasks
from distillbench.config.protocols import chosen_on
from distillbench.engine.rates import learning_rate
from distillbench.engine.sums import averages
from distillbench.errors import RunFailed

OBSERVED_EVERY = 5  # the method observes every fifth step of a run: what history.csv has of it costs operations


def train_epochs(specification, learner, driver, evaluated, progress, flight, watch, report, log):
    """Train from where `progress` stands to the last epoch.

    driver: of `drivers.drive`; evaluated: `feed.Split`, whose accuracy each epoch ends with;
    report, log: as of `run.train`.
    """
    schedule, size, num_images = specification.schedule, specification["batch"]["size"], len(learner.feed)
    split, headline = chosen_on(specification["dataset"]["protocol"]), tasks.task(specification["task"]).headline
    while progress.epoch <= schedule["EPOCHS"]:
        learner.begin(progress.epoch, learning_rate(schedule, progress.epoch), progress.position)
        while progress.position < num_images:  # the last and smaller batch included
            count = min(size, num_images - progress.position)
            number = (progress.epoch - 1) * math.ceil(num_images / size) + progress.position // size
            learner.feed.fetch(count)
            driver.step(count, observing=number % OBSERVED_EVERY == 0)
            progress.position += count
            flight.save_sometimes(learner, progress, watch.seconds())
        learner.require_agreement()
        row = epoch_row(schedule, progress.epoch, learner, {split: learner.evaluate(evaluated)})
        progress.end_epoch(row, learner.deployed, split, headline)
        flight.save_sometimes(learner, progress, watch.seconds())
        flight.report(progress)
        accuracies = (f"{name} {row[f'{name}_{headline}']:.2f}" for name in ("train", split))
        report("  ".join([epoch_line(row, schedule["EPOCHS"]), *accuracies, f"{watch.seconds():.0f} s"]))
        if log:
            log(row)


def epoch_row(schedule, epoch, learner, evaluated):
    """The epoch's line of history.csv; evaluated: {split: {name: number}}.

    Raises RunFailed unless every number in it is finite.
    """
    trained = averages(learner.task, learner.sums)
    row = {"epoch": epoch, "lr": learning_rate(schedule, epoch)}
    row["train_loss"] = sum(value for name, value in trained.items() if name.startswith("loss_"))
    for split, values in {"train": trained, **evaluated}.items():
        row |= {f"{split}_{name}": value for name, value in values.items()}
    for name, value in row.items():
        if not abs(value) < float("inf"):
            raise RunFailed(f"{name} is {value} in epoch {epoch}")
    return row


def epoch_line(row, num_epochs):
    return f"epoch {row['epoch']}/{num_epochs}  lr {row['lr']:.4g}  loss {row['train_loss']:.4f}"

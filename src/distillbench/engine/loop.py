"""The training loop: epochs of steps, each with a line of history.csv."""

from distillbench.engine.sums import averages
from distillbench.errors import RunFailed
from distillbench.evaluation import HEADLINE
from distillbench.store.layout import SPLIT


def train_epochs(specification, learner, evaluated, progress, flight, watch, report, log):
    """Train from where `progress` stands to the last epoch.

    evaluated: `feed.Split`, whose accuracy each epoch ends with; report, log: as of `run.train`.
    """
    schedule, size, num_images = specification["schedule"], specification["batch"]["size"], len(learner.feed)
    while progress.epoch <= schedule["EPOCHS"]:
        learner.begin(progress.epoch, learning_rate(schedule, progress.epoch), progress.position)
        while progress.position < num_images:  # the last and smaller batch included
            count = min(size, num_images - progress.position)
            learner.step(count)
            progress.position += count
            flight.save_sometimes(learner, progress, watch.seconds())
        row = epoch_row(specification, learner, progress.epoch, learner.evaluate(evaluated))
        progress.end_epoch(row, learner.deployed, SPLIT, HEADLINE)
        flight.save_sometimes(learner, progress, watch.seconds())
        flight.report(progress)
        report(epoch_line(row, schedule["EPOCHS"], watch))
        if log:
            log(row)


def learning_rate(schedule, epoch):
    """The rate in an epoch (from 1 on): LR, times LR_DECAY_RATE for each stage that is behind it."""
    return schedule["LR"] * schedule["LR_DECAY_RATE"] ** sum(epoch > stage for stage in schedule["LR_DECAY_STAGES"])


def epoch_row(specification, learner, epoch, evaluated):
    """The epoch's line of history.csv. Raises RunFailed unless every number in it is finite."""
    trained = averages(learner.task, learner.sums.state_dict())
    row = {"epoch": epoch, "lr": learning_rate(specification["schedule"], epoch)}
    row["train_loss"] = sum(value for name, value in trained.items() if name.startswith("loss_"))
    row |= {f"train_{name}": value for name, value in trained.items()}
    row |= {f"{SPLIT}_{name}": value for name, value in evaluated.items()}
    for name, value in row.items():
        if not abs(value) < float("inf"):
            raise RunFailed(f"{name} is {value} in epoch {epoch}")
    return row


def epoch_line(row, num_epochs, watch):
    accuracy = "  ".join(f"{split} {row[f'{split}_{HEADLINE}']:.2f}" for split in ("train", SPLIT))
    return (
        f"epoch {row['epoch']}/{num_epochs}  lr {row['lr']:.4g}  loss {row['train_loss']:.4f}"
        f"  {accuracy}  {watch.seconds():.0f} s"
    )

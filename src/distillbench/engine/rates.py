"""Learning rates: one an epoch, a function of the specification's schedule and the epoch alone."""

import math


def learning_rate(schedule, epoch):
    """The rate in an epoch, from 1 on. schedule: `Specification.schedule`.

    In the first WARMUP_EPOCHS it rises in equal steps, of which there is one more.
    """
    warm = min(epoch / (schedule["WARMUP_EPOCHS"] + 1), 1.0)
    return warm * SCHEDULES[schedule["SCHEDULE"]](schedule, epoch)


def step(schedule, epoch):
    """LR, times LR_DECAY_RATE for each stage that is behind the epoch."""
    return schedule["LR"] * schedule["LR_DECAY_RATE"] ** sum(epoch > stage for stage in schedule["LR_DECAY_STAGES"])


def cosine(schedule, epoch):
    """LR while it warms up, then to MIN_LR along half a cosine (Loshchilov, Hutter, ICLR 2017, arXiv:1608.03983)."""
    warmup = schedule["WARMUP_EPOCHS"]
    done = max(epoch - 1 - warmup, 0) / (schedule["EPOCHS"] - warmup)
    return schedule["MIN_LR"] + (schedule["LR"] - schedule["MIN_LR"]) * (1 + math.cos(math.pi * done)) / 2


SCHEDULES = {"step": step, "cosine": cosine}

"""What a step of every method costs on a CPU, beside one of KD: prints a table in Markdown.

python tools/costs.py [--pair TEACHER:STUDENT] [--rounds N]

On generated images of CIFAR-100's shape and number, in fp32 on one thread. The two steps are made in turn; the time is
that of the processor, the median of the ratios over the rounds.
"""

import argparse
import sys
import time
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from distillbench.checks.method import learner
from distillbench.config import components
from distillbench.engine.replay import Recording, untouched

IMAGES, BATCH = 50_000, 64
COLUMNS = ("method", "trained with the student", "remembered", "multiply-adds", "operations", "time")


def built(name, pair):
    """A learner of a method."""
    keys = {"DATASET.TYPE": "cifar100", "DISTILLER.TEACHER": pair[0], "DISTILLER.STUDENT": pair[1]}
    keys |= {"DISTILLER.TYPE": name, "SOLVER.BATCH_SIZE": BATCH, "SOLVER.PRECISION": "fp32"}
    return learner(keys, num_images=IMAGES)


def counts(learner):
    """(multiply-adds of convolutions and matrix products, operations that compute) of a step."""
    with untouched(learner), FlopCounterMode(display=False) as counter:
        learner.step(BATCH, observing=False)
    with untouched(learner), Recording() as recording:
        learner.step(BATCH, observing=False)
    return counter.get_total_flops() / 2, len(recording.computing)


def seconds(learner):
    learner.feed.begin(1)
    start = time.process_time()
    learner.step(BATCH, observing=False)
    return time.process_time() - start


def row(name, other, rounds):
    """The cells of a method; other: the learner of KD."""
    own = built(name, other.pair)
    trained = sum(parameter.numel() for parameter in own.method.parameters())
    kept = sum(buffer.numel() for buffer in own.method.buffers())
    (products, operations), (reference, number) = counts(own), other.counts
    ratios = [seconds(own) / seconds(other) for _ in range(rounds + 1)][1:]  # the first gets up to speed
    numbers = f"{trained:,}", f"{kept:,}", f"{products / reference:.2f}", f"{operations / number:.2f}"
    return name, *(text if text != "0" else "" for text in numbers), f"{median(ratios):.2f}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", default="resnet32x4:resnet8x4", metavar="TEACHER:STUDENT", help="of CIFAR-100")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="(default: 7)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    other = built("KD", options.pair.split(":"))
    other.pair, other.counts = options.pair.split(":"), counts(other)
    print(f"| {' | '.join(COLUMNS)} |\n|{' - |' * len(COLUMNS)}")
    for name in components.packaged_methods():
        print(f"| {' | '.join(row(name, other, options.rounds))} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())

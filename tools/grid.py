"""Every method on every pair of the papers' tables: does it keep the rules of `distillbench check` there?

python tools/grid.py [--jobs N] [PATTERN ...]     cells of whose names a text contains all of a PATTERN's words

A cell is a method, perhaps with others of its combinations, on a pair of networks, with generated images of the
dataset's shape, four at a time, in fp32. Beside the grid itself there are all combinations with transforms and
trainers on one pair of each kind, and what `OFFICIAL: mdistiller` makes of the methods that have it on one pair.

Exit codes: 0 everything is kept but for what is expected to be refused, 1 it is not, 2 no cell is meant.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import NamedTuple

import torch

from distillbench.checks import method as contract
from distillbench.config import components
from distillbench.errors import UserError

PAIRS = {  # by kind: (dataset, teacher, student), the first for combinations
    "same": [
        ("cifar100", "resnet56", "resnet20"),
        ("cifar100", "wrn_40_2", "wrn_16_2"),
        ("cifar100", "wrn_40_2", "wrn_40_1"),
        ("cifar100", "resnet110", "resnet20"),
        ("cifar100", "resnet110", "resnet32"),
        ("cifar100", "resnet32x4", "resnet8x4"),
        ("cifar100", "vgg13", "vgg8"),
    ],
    "different": [
        ("cifar100", "vgg13", "MobileNetV2"),
        ("cifar100", "resnet32x4", "ShuffleV1"),
        ("cifar100", "resnet32x4", "ShuffleV2"),
        ("cifar100", "wrn_40_2", "ShuffleV1"),
        ("cifar100", "ResNet50", "vgg8"),
        ("cifar100", "ResNet50", "MobileNetV2"),
    ],
    "Tiny-ImageNet": [("tiny_imagenet", "ResNet18", "MobileNetV2"), ("tiny_imagenet", "ResNet18", "ShuffleV2")],
    "ImageNet": [("imagenet", "ResNet34", "ResNet18"), ("imagenet", "ResNet50", "MobileNetV1")],
}
MDISTILLER = "mdistiller"
SVD = {"DISTILLER.TYPE": "KDSVD", "KDSVD.OFFICIAL": MDISTILLER}  # which every pair can have
ROWS = {name: {"DISTILLER.TYPE": name} for name in components.packaged_methods()} | {f"KDSVD {MDISTILLER}": SVD}
REFUSED = {  # row: on which pairs, by (teacher, student); the only ones
    "KDSVD": [
        ("wrn_40_2", "wrn_40_1"),
        ("vgg13", "MobileNetV2"),
        ("resnet32x4", "ShuffleV1"),
        ("resnet32x4", "ShuffleV2"),
        ("wrn_40_2", "ShuffleV1"),
        ("ResNet50", "vgg8"),
        ("ResNet50", "MobileNetV2"),
        ("ResNet18", "MobileNetV2"),
        ("ResNet18", "ShuffleV2"),
        ("ResNet50", "MobileNetV1"),
    ],
}
WHY = {"KDSVD": "compares channel by channel, and the stages of student and teacher have other numbers of channels"}
RATE, RATES = 1e-3, {"CRD": 1e-4}  # at which ten steps on one batch are neither noise nor go beyond the minimum
RULES = (
    contract.gives_finite_losses,
    contract.trains_what_is_its_own,
    contract.resumes,
    contract.can_be_replayed,
    contract.learns,
)
KEPT, EAGER, REFUSAL = "kept", "kept, eager", "refused"


class Cell(NamedTuple):
    """row: what people call the method; keys: of a configuration; pair: (dataset, teacher, student)."""

    row: str
    keys: dict
    kind: str
    pair: tuple

    def __str__(self):
        dataset, teacher, student = self.pair
        return f"{self.row} {dataset} {teacher}:{student}"

    @property
    def words(self):
        return {*str(self).replace(":", " ").split()}

    @property
    def expected(self):
        if self.pair[1:] in REFUSED.get(self.row, ()):
            return REFUSAL
        return KEPT if components.methods()[self.keys["DISTILLER.TYPE"]]["capturable"] else EAGER


def grid():
    """The cells of every method on every pair."""
    return [
        Cell(row, keys, kind, pair) for kind, pairs in PAIRS.items() for pair in pairs for row, keys in ROWS.items()
    ]


def combined():
    """Those of every combination on the first pair of each kind, and of the official variants on one pair."""
    cells = []
    for name in components.packaged_methods():
        for row, keys in contract.combinations(name).items():
            keys = keys | (SVD if name == "KDSVD" else {})
            cells += [Cell(row, keys, kind, pairs[0]) for kind, pairs in PAIRS.items() if row != name]
    for name, declared in components.packaged_methods().items():
        if "OFFICIAL" in declared["keys"] and f"{name} {MDISTILLER}" not in ROWS:
            keys = {"DISTILLER.TYPE": name, f"{declared['node']}.OFFICIAL": MDISTILLER}
            cells.append(Cell(f"{name} {MDISTILLER}", keys, "different", PAIRS["different"][0]))
    return cells


def outcome(cell, rules=None):
    """What became of a cell: one of the expected outcomes, or what is broken; rules: in place of `RULES`."""
    torch.set_num_threads(1)
    dataset, teacher, student = cell.pair
    keys = {"DATASET.TYPE": dataset, "DISTILLER.TEACHER": teacher, "DISTILLER.STUDENT": student}
    rate = RATES.get(cell.keys["DISTILLER.TYPE"], RATE)
    keys |= {"SOLVER.BATCH_SIZE": 4, "SOLVER.PRECISION": "fp32", "SOLVER.LR": rate, **cell.keys}
    try:
        contract.learner(keys)
    except UserError as refusal:
        return REFUSAL if cell.expected == REFUSAL else f"refused: {refusal}"
    for rule in RULES if rules is None else rules:
        try:
            rule(keys)
        except Exception as error:  # whatever the method's code raises
            return f"{rule.__doc__}: {' '.join(f'{type(error).__name__}: {error}'.split())}"
    return KEPT if components.methods()[cell.keys["DISTILLER.TYPE"]]["capturable"] else EAGER


def table(outcomes):
    """A table in Markdown: on how many pairs of each kind a method is kept or refused; outcomes: [(cell, text)]."""
    lines = [["method", *(f"{kind} ({len(pairs)})" for kind, pairs in PAIRS.items())]]
    for row in (row for row in ROWS if any(cell.row == row for cell, _ in outcomes)):
        found = [[text for cell, text in outcomes if (cell.row, cell.kind) == (row, kind)] for kind in PAIRS]
        lines.append([row, *map(_counted, found)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def _counted(texts):
    texts = [text if text in (KEPT, EAGER, REFUSAL) else "BROKEN" for text in texts]
    return "; ".join(f"{texts.count(text)} {text}" for text in dict.fromkeys(sorted(texts)))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help='e.g. "OFD imagenet"; default: everything')
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes (default: all cores)")
    options = parser.parse_args(arguments)
    patterns = [pattern.split() for pattern in options.patterns] or [[]]
    cells = [cell for cell in (*grid(), *combined()) if any(set(words) <= cell.words for words in patterns)]
    if not cells:
        parser.error("no cell has all the words of a pattern")
    start, outcomes, otherwise = time.monotonic(), [], 0
    with ProcessPoolExecutor(options.jobs) as pool:
        running = {pool.submit(outcome, cell): cell for cell in cells}
        for number, done in enumerate(as_completed(running), 1):
            cell, text = running[done], done.result()
            outcomes.append((cell, text))
            if text != cell.expected:
                otherwise += 1
                text = f"{text} (expected: {cell.expected})"
            print(f"{number}/{len(cells)} {cell}: {text}", file=sys.stderr, flush=True)
    minutes = (time.monotonic() - start) / 60
    print(table(outcomes))
    print(f"\n{len(cells) - otherwise} of {len(cells)} cells as expected; {minutes:.1f} min, {options.jobs} processes")
    return 1 if otherwise else 0


if __name__ == "__main__":
    sys.exit(main())

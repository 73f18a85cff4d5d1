"""Protocols: which images a run trains on, and by which images its best epoch is chosen. Both are tested on the test
images.

"published": all training images, and the best epoch is the one with the best test accuracy, as in the papers.
{"holdout": FRACTION, "salt": N}: that fraction of each class of the training images is held out, by a hash; the best
epoch is the best on these, and the test images are looked at in the end alone. Another salt holds out others.
"""

from distillbench.config.keys import Key
from distillbench.config.specification import PUBLISHED
from distillbench.errors import UserError, one_of

CHOOSING = {"holdout": 0.1}  # the protocol of suites with a sweep that name none

KEYS = {
    "holdout": Key(0.1, "fraction of each class that is held out", above=0, maximum=0.5),
    "salt": Key(0, "which images these are", minimum=0),
}


def read_protocol(value, where):
    """The protocol that a text or mapping stands for, as a specification has it. where: for messages.

    Raises UserError for what is none.
    """
    if value == PUBLISHED:
        return PUBLISHED
    if isinstance(value, str):
        raise UserError(f"{where}: {one_of(value, [PUBLISHED], 'protocol')}, or write {{holdout: 0.1}}")
    if not isinstance(value, dict) or "holdout" not in value:
        raise UserError(f"{where}: {value!r} is not valid here, expected {PUBLISHED} or {{holdout: 0.1}}")
    for name in value:
        if name not in KEYS:
            raise UserError(f"{where}: {one_of(name, KEYS, 'key')}")
    return {name: key.check(value.get(name, key.default), f"{where}.{name}") for name, key in KEYS.items()}


def chosen_on(protocol):
    """The split that each epoch ends with, and on which the best one is chosen."""
    return "test" if protocol == PUBLISHED else "val"


def phrase(protocol):
    """A protocol in the words of a table's legend."""
    if protocol == PUBLISHED:
        return "published protocol: all training images"
    which = f", salt {protocol['salt']}" if protocol["salt"] else ""
    return f"hold-out protocol: {protocol['holdout']:.3g} of the training images held out{which}"

"""Cases of reference vectors: their files, and the comparison with what they state."""

import json
import os
import re

import numpy as np
import torch

from distillbench.config.resolve import flatten, resolve
from distillbench.config.specification import build_specification
from distillbench.errors import UserError
from distillbench.files import read_json

DTYPES = ("float64", "float32")
FAILURE = re.compile("error|exception|raise|fail", re.IGNORECASE)  # in keys that record how the official code failed
# Keys of a description that hold results or tell how the arrays hold them.
RESULTS = (
    "arrays",
    "parameter_order_of_grad_arrays",
    "format",
    "eval",
    "train",
    "lr_per_epoch",
    "state_dict",
    "resolved",
)
WITHOUT_ARRAYS = ("lr_schedule*.json", "*.structure.json")  # whose results are in the description
INTERMEDIATE = re.compile(
    r"^(step\d+\.)?aux\."
)  # arrays of values on the way to the results; nothing here has their names


class Mismatch(Exception):
    """A value that is not the reference's."""


class NotCovered(Exception):
    """A case that this version has no counterpart for."""


class NothingToCompare(Exception):
    """A case without a number to compare: a record that the official code failed, or one of nothing but overflow."""


class Unreadable(Exception):
    """A file that is damaged, incomplete or something else than a case."""


class Arrays(dict):
    """Arrays of a case by name; knows which of them a check has read, compared or found to hold no finite number."""

    def __init__(self, arrays):
        super().__init__(arrays)
        self.read, self.compared, self.overflowed = set(), set(), set()

    def __getitem__(self, name):
        array = super().__getitem__(name)
        self.read.add(name)
        return array

    def compare(self, name, ours, tolerance, step=None, overflow=False):
        """Compare with an array, or with its entry of a step; raises as the function `compare`."""
        place, stated = (name, self[name]) if step is None else (f"{name}[{step}]", self[name][step])
        found = self.compared if compare(place, ours, stated, tolerance, overflow) else self.overflowed
        if stated.size:
            found.add(name)

    def part(self, prefix):
        """Those whose names begin so, without the prefix; what is done with them counts here."""
        return Part(self, prefix)


class Part(Arrays):
    """As of `Arrays.part`."""

    def __init__(self, whole, prefix):
        super().__init__({name.removeprefix(prefix): array for name, array in whole.items() if name.startswith(prefix)})
        self.whole, self.prefix = whole, prefix

    def __getitem__(self, name):
        return self.whole[self.prefix + name]

    def compare(self, name, *others, **options):
        self.whole.compare(self.prefix + name, *others, **options)


def read_case(path):
    """(description, arrays by name) of a case; what the description states of its arrays is true."""
    if not path.is_file():
        raise Unreadable("is no plain file")
    try:
        description = read_json(path)
    except UserError as error:
        raise Unreadable(first_line(error).removeprefix(f"{path}: ").removesuffix("; restore or remove it")) from None
    beside = path.with_name(path.name.removesuffix(".json") + ".npz")
    exist = os.path.lexists(beside)
    arrays = load_arrays(beside) if exist else {}
    if not isinstance(description, dict):
        return description, Arrays(arrays)
    results = exist or any(map(description.get, RESULTS)) or any(map(path.match, WITHOUT_ARRAYS))
    for key, value in description.items() if not results else ():
        if FAILURE.search(key) and isinstance(value, str) and value.strip():
            raise NothingToCompare(f"the official code failed ({key}: {first_line(value.strip())})")
    if description.get("npz") and not exist:
        raise Unreadable(f"its arrays are missing, {beside.name}")
    stated = description.get("arrays")
    for name, entry in stated.items() if isinstance(stated, dict) else ():
        array = arrays[name]
        if [list(array.shape), str(array.dtype)] != [entry["shape"], entry["dtype"]]:
            raise Unreadable(f"{name} is {array.dtype} {list(array.shape)}, stated {entry['dtype']} {entry['shape']}")
    return description, Arrays(arrays)


def load_arrays(path):
    """{name: array} of an .npz file of numbers."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
    except Exception as error:  # a damaged zip raises half a dozen types
        raise Unreadable(f"{path.name} is not readable ({first_line(error) or type(error).__name__})") from None
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise Unreadable(f"{path.name}: {name} holds {array.dtype}, no numbers")
    return arrays


def first_line(text):
    return next(iter(str(text).splitlines()), "")


def specification_of(keys):
    """The specification of a run with these configuration keys. Raises NotCovered if no configuration has them."""
    try:
        config, transforms, _ = resolve((), flatten(keys, "setting"))
    except UserError as error:
        raise NotCovered(re.sub("^setting[.:] *", "setting ", str(error))) from None
    return build_specification(config, transforms=transforms, teacher=None, seed=0)


def known_precision(dtype):
    if dtype not in DTYPES:
        raise NotCovered(f"dtype {dtype}")
    return dtype


def compare(name, ours, reference, tolerance, overflow=False):
    """Whether the reference states a finite number. Raises Mismatch unless two arrays agree.

    overflow: the reference may be NaN or infinite; values of ours are finite there or the same.
    """
    ours = np.asarray(ours.detach() if isinstance(ours, torch.Tensor) else ours, dtype=np.float64)
    reference = np.asarray(reference, dtype=np.float64)
    if ours.shape != reference.shape:
        raise Mismatch(f"{name}: shape {ours.shape}, reference {reference.shape}")
    rtol, atol = tolerance
    stated = np.isfinite(reference)
    if not (overflow or stated.all()):
        raise Unreadable(f"{name} is not finite, and the description says nothing of that")
    allowed = atol + rtol * np.abs(reference[stated]).max(initial=0.0)
    difference = np.abs(ours[stated] - reference[stated]).max(initial=0.0)
    if not difference <= allowed:
        raise Mismatch(f"{name}: off by {difference:.3g}, allowed {allowed:.3g}")
    if not (stated | np.isfinite(ours) | (ours == reference) | (np.isnan(ours) & np.isnan(reference))).all():
        raise Mismatch(f"{name}: is not finite in another way than the reference")
    return bool(stated.any())


def says_overflow(description):
    """Whether a case's own words say that the official numbers are not all finite."""
    words = json.dumps([description.get(key) for key in ("case", "description", "notes")])
    said = "(?<![a-z])(nan|inf|infinit[ey]|non-?finite|overflows?|extreme)(?![a-z])"
    return re.search(said, words, re.IGNORECASE) is not None

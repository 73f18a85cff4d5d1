"""`Key`: the declaration of one configuration key, and the typing of its values."""

import re
from dataclasses import dataclass, replace
from typing import Any

from distillbench.errors import UserError, one_of

UNSET = "<unset>"
LARGEST = {int: 2**53 - 1, float: 1e38}  # what JSON holds exactly, and single precision
TYPES = {bool: "true or false", int: "integer", float: "number", str: "text"}
DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Key:
    """A configuration key: its default (which gives the type), its range and what it means.

    default: the value in mdistiller's dialect; `gkd` the one in the GKD repository's, if another.
    minimum, above, maximum: bounds, `above` exclusive; for a list they hold for each entry.
    choices: the valid values of a text; with `or_number` a number is valid too, with `or_number=int` an integer.
    increasing: of a list of numbers, that each is larger than the one before. The entries of a list have the type of
        the default's first.
    ignored_by_gkd: the GKD repository reads the key and does not use it: its effective value there is `gkd`.
    identity: whether the value is part of a run's specification; `why` gives the reason in the docs. One of a method
        that is not is read for the sake of published files, noted where it is written, and not given to the method.
    neutral: for a key that was added after schema 1: the value at which the key is left out of the digest,
        frozen for ever, so that its arrival renamed no run.
    """

    default: Any
    help: str
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None
    or_number: bool | type = False
    increasing: bool = False
    gkd: Any = UNSET
    ignored_by_gkd: bool = False
    identity: bool = True
    why: str = "it changes what is computed"
    neutral: Any = UNSET

    @property
    def type_name(self):
        if isinstance(self.default, (list, tuple)):
            return f"list of {TYPES[type(self.default[0])]}s"
        if self.choices:
            return " | ".join([*self.choices, *([TYPES[self._number_type]] if self.or_number else [])])
        return TYPES[type(self.default)]

    @property
    def _number_type(self):
        return int if int in (type(self.default), self.or_number) else float

    @property
    def _entry(self):
        """The key of an entry of a list."""
        return replace(self, default=self.default[0])

    @property
    def range_text(self):
        parts = []
        if self.minimum is not None:
            parts.append(f">= {self.minimum:g}")
        if self.above is not None:
            parts.append(f"> {self.above:g}")
        if self.maximum is not None:
            parts.append(f"<= {self.maximum:g}")
        return " and ".join(parts)

    def default_in(self, dialect):
        return self.gkd if dialect == "gkd" and self.gkd != UNSET else self.default

    def check(self, value, where):
        """Return `value` as the key's type. Raises UserError (`where` names file and key) if it cannot be."""
        if isinstance(self.default, (list, tuple)):
            return self._list(value, where)
        typed = self._typed(value)
        if typed is None:
            raise self._wrong_type(value, where)
        if isinstance(typed, str) and self.choices and typed not in self.choices:
            raise UserError(f"{where}: {one_of(value, self.choices, 'value')}")
        if isinstance(typed, (str, bool)):
            return typed
        self._in_range(typed, value, where)
        return self._number_type(typed)

    def _typed(self, value):
        """The value as a text, bool or number, as the default is; None if it cannot be."""
        number = _number(value)
        if isinstance(self.default, str) and not (self.or_number and number is not None):
            return value if isinstance(value, str) and (self.choices or not self.or_number) else None
        if isinstance(self.default, bool):
            return value if isinstance(value, bool) else None
        return None if number is None or (self._number_type is int and number != int(number)) else number

    def _list(self, value, where):
        entry = self._entry
        if not isinstance(value, (list, tuple)) or any(entry._typed(v) is None for v in value):
            raise self._wrong_type(value, where)
        entries = [entry.check(v, where) for v in value]
        if self.increasing and entries != sorted(set(entries)):
            raise UserError(f"{where}: {value!r} must increase, e.g. {list(self.default)}")
        return entries

    def _in_range(self, number, value, where):
        largest = LARGEST[self._number_type]
        if abs(number) > largest:
            raise UserError(f"{where}: {_shown(value)} is out of range, must be at most {largest:.16g} in size")
        low = self.minimum is not None and number < self.minimum
        if (
            low
            or (self.above is not None and number <= self.above)
            or (self.maximum is not None and number > self.maximum)
        ):
            raise UserError(f"{where}: {_shown(value)} is out of range, must be {self.range_text}")

    def _wrong_type(self, value, where):
        return UserError(
            f"{where}: {_shown(value)} is not valid here, expected {self.type_name}, e.g. {self.default!r}"
        )


def _number(value):
    """The finite number that `value` is or reads as ("1e-2" is text to YAML, a number to people), else None."""
    if isinstance(value, str):
        if not DECIMAL.fullmatch(value):  # float() also takes "1_000" and digits of other scripts
            return None
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < float("inf") else None


def _shown(value):
    """A value for a message, shortened."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**60 else "a number of more than 60 digits"
    return text if len(text) <= 120 else f"{text[:100]} ... {text[-10:]}"

"""`Key`: the declaration of one configuration key, and the typing of its values."""

import re
from dataclasses import dataclass
from typing import Any

from distillbench.errors import UserError, one_of

UNSET = "<unset>"
LARGEST = {int: 2**53 - 1, float: 1e38}  # what JSON holds exactly, and single precision
DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Key:
    """A configuration key: its default (which gives the type), its range and what it means.

    default: the value in mdistiller's dialect; `gkd` the one in the GKD repository's, if another.
    minimum, above, maximum: bounds, `above` exclusive; for a list they hold for each entry.
    choices: the valid values of a text; with `or_number` a number is valid too.
    ignored_by_gkd: the GKD repository reads the key and does not use it: its effective value there is `gkd`.
    identity: whether the value is part of a run's specification; `why` gives the reason in the docs.
    neutral: for a key that was added after schema 1: the value at which the key is left out of the digest,
        frozen for ever, so that its arrival renamed no run.
    """

    default: Any
    help: str
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None
    or_number: bool = False
    gkd: Any = UNSET
    ignored_by_gkd: bool = False
    identity: bool = True
    why: str = "it changes what is computed"
    neutral: Any = UNSET

    @property
    def type_name(self):
        if isinstance(self.default, (list, tuple)):
            return "list of integers"
        if self.choices:
            return " | ".join(self.choices) + (" | number" if self.or_number else "")
        return {bool: "true or false", int: "integer", float: "number", str: "text"}[type(self.default)]

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
        if self.choices and not (self.or_number and _number(value) is not None):
            return self._choice(value, where)
        if isinstance(self.default, bool):
            if isinstance(value, bool):
                return value
            raise self._wrong_type(value, where)
        if isinstance(self.default, str) and not self.or_number:
            if isinstance(value, str):
                return value
            raise self._wrong_type(value, where)
        number = _number(value)
        if number is None or (isinstance(self.default, int) and number != int(number)):
            raise self._wrong_type(value, where)
        self._in_range(number, value, where)
        return int(number) if isinstance(self.default, int) else float(number)

    def _list(self, value, where):
        if not isinstance(value, (list, tuple)):
            raise self._wrong_type(value, where)
        numbers = [_number(v) for v in value]
        if any(n is None or n != int(n) for n in numbers):
            raise self._wrong_type(value, where)
        for number in numbers:
            self._in_range(number, value, where)
        if numbers != sorted(set(numbers)):
            raise UserError(f"{where}: {value!r} must increase, e.g. {list(self.default)}")
        return [int(n) for n in numbers]

    def _choice(self, value, where):
        if not isinstance(value, str):
            raise self._wrong_type(value, where)
        if value not in self.choices:
            raise UserError(f"{where}: {one_of(value, self.choices, 'value')}")
        return value

    def _in_range(self, number, value, where):
        largest = LARGEST[float if isinstance(self.default, (float, str)) else int]
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

"""The gate that every field of a file passes: of the type it must have, or a fault with its place.

A JSON file is taken a column at a time. Where all values of a column fit, which is the rule, that costs some ten nanoseconds
an entry; only a column with a misfit is looked at entry by entry.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ddptrain.data.tables.faults import Faults

SHOWN = 60
"""Characters of a value that are shown."""
_MISSING = object()
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Field(NamedTuple):
    """What a field must be. `fits`: whether all of these values are it; `numbers`: made of numbers, which may also be
    infinite or none at all."""

    allowed: str
    fits: Callable[[Sequence[Any]], bool]
    numbers: bool = False


def _only(values: Iterable[Any], *types: type) -> bool:
    return set(map(type, values)) <= {*types}  # type itself: a bool is not a number here


def _are_numbers(values: Sequence[Any]) -> bool:
    try:
        return _only(values, int, float) and bool(np.isfinite(np.fromiter(values, np.float64, len(values))).all())
    except OverflowError:
        return False


def _are_texts(values: Sequence[Any]) -> bool:
    if not _only(values, str) or not all(values):
        return False
    joined = "".join(values)
    try:
        joined.encode()  # half of a pair of surrogates is not text
    except UnicodeEncodeError:
        return False
    return _CONTROL.search(joined) is None


def _are_boxes(values: Sequence[Any]) -> bool:
    return _only(values, list) and set(map(len, values)) <= {4} and _are_numbers(list(chain.from_iterable(values)))


def _are_polygons(values: Sequence[Any]) -> bool:
    parts: list[Any] = list(chain.from_iterable(values)) if _only(values, list) and all(values) else [None]
    even = _only(parts, list) and all(len(p) >= 6 and len(p) % 2 == 0 for p in parts)
    return even and _are_numbers(list(chain.from_iterable(parts)))


NUMBER = Field("a finite number", _are_numbers, True)
AREA = Field("a number from 0 to 1e12", lambda v: _are_numbers(v) and all(0 <= n <= 1e12 for n in v), True)
INTEGER = Field("an integer", lambda v: _only(v, int))
SIZE = Field("an integer ≥ 0", lambda v: _are_numbers(v) and all(n >= 0 and n == int(n) for n in v))
FLAG = Field("0, 1, true or false", lambda v: _only(v, int, float, bool) and set(v) <= {0, 1})
ID = Field("an integer or a string", lambda v: _only(v, int, str))
TEXT = Field("a non-empty line of text", _are_texts)
LIST = Field("a list", lambda v: _only(v, list))
MAPPING = Field("a mapping", lambda v: _only(v, dict))
BOX = Field("a list of four finite numbers", _are_boxes, True)
POLYGONS = Field("a list of polygons, each of three or more points", _are_polygons, True)


def misfit(key: str, value: Any, field: Field) -> tuple[str, str] | None:
    """Kind of fault and what is wrong with one value; None where it is as it must be."""
    if field.fits([value]):
        return None
    shown = repr(value) if len(repr(value)) <= SHOWN else f"{repr(value)[:SHOWN]}…"
    endless = field.numbers and any(isinstance(v, float) and not math.isfinite(v) for v in _flat(value))
    return "non-finite number" if endless else "malformed row", f"{key} is {shown}; must be {field.allowed}"


def _flat(value: Any) -> Iterable[Any]:
    return chain.from_iterable(map(_flat, value)) if isinstance(value, list) else (value,)


def is_number(text: str) -> bool:
    """Whether a text is a number, though perhaps with a decimal comma."""
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return "_" not in text


def to_number(text: str) -> float:
    """The number in a field of a text file; `ValueError` with what is wrong otherwise."""
    try:
        if "_" not in text:  # 1_0 is a number in Python only
            return float(text)
    except ValueError:
        pass
    if text.count(",") == 1 and is_number(text):
        raise ValueError(f"{text} has a decimal comma; write {text.replace(',', '.')}")
    raise ValueError(f"{text!r} is not a number")


def to_integer(text: str) -> int:
    """The integer in a field of a text file; `ValueError` with what is wrong otherwise."""
    if text.removeprefix("-").isdecimal():
        return int(text)
    raise ValueError(f"{text!r} is not an integer")


class Entries:
    """The entries of a list in a JSON file.

    Attributes:
        good: the entries in which no fault was found so far; every column is as long as the list, and what stands in it at
            the others says nothing.
    """

    def __init__(self, items: Sequence[Any], place: Callable[[int], str], faults: Faults) -> None:
        """`place`: where an entry stands, from its number."""
        self.place, self.faults = place, faults
        self.good = np.ones(len(items), bool)
        self.items: Sequence[dict[str, Any]] = items
        if not _only(items, dict):
            for i, item in enumerate(items):
                if type(item) is not dict:
                    self.bad(i, *(misfit("the entry", item, MAPPING) or ("", "")))
            self.items = [item if type(item) is dict else {} for item in items]

    def bad(self, number: int, kind: str, what: str) -> None:
        """Count a fault of an entry, which is left out."""
        self.good[number] = False
        self.faults.add(kind, self.place(number), what)

    def column(self, key: str, field: Field, default: Any = None) -> list[Any]:
        """The values of a field that every entry must have; `default` where it does not fit."""
        return self.check(key, [item.get(key, _MISSING) for item in self.items], field, default, optional=False)

    def optional(self, key: str, field: Field, default: Any = None) -> list[Any]:
        """The values of a field that may be missing or null; `default` there, and where it does not fit."""
        return self.check(key, [item.get(key) for item in self.items], field, default)

    def check(self, key: str, values: Sequence[Any], field: Field, default: Any = None, optional: bool = True) -> list[Any]:
        """`optional`, or `column`, for values that were taken from the entries already."""
        given = [v for v in values if v is not None] if optional else values
        if field.fits(given):
            return [default if v is None else v for v in values] if len(given) < len(values) else list(values)
        return [default if (v is None and optional) or self._misfits(i, key, v, field) else v for i, v in enumerate(values)]

    def _misfits(self, number: int, key: str, value: Any, field: Field) -> bool:
        missing = ("malformed row", f"has no {key}; must be {field.allowed}")
        wrong = missing if value is _MISSING else misfit(key, value, field)
        if wrong is not None and self.good[number]:
            self.bad(number, *wrong)
        return wrong is not None

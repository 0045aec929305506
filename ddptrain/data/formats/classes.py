"""A dataset's own class names: those that its files or its format know, and those that the config gives."""

import re
from collections.abc import Iterable, Sequence

from ddptrain.config.data import DatasetConfig
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError
from ddptrain.system.printable import counted, first_few

SHOWN = 40
_NUMBER = re.compile(r"((class|category|label|cls|id|n)?[-_ ]?\d+)?", re.IGNORECASE)
"""A stored name that says nothing: none at all, `3`, `class_3`, a WordNet id."""


def class_names(config: DatasetConfig, stored: Iterable[str], where: str, faults: Faults) -> tuple[str, ...]:
    """Own class names in the order of the dataset's ids: those that `where` stores (a file, or the format itself), spelled
    as in `names` of the config where it gives them.

    `names` must be the stored ones; an order of its own would give boxes to other classes and is reported as a note. Only
    where the stored ones are mere numbers, `names` gives their meaning, in their order. No name may be listed twice.
    """
    stored = tuple(stored)
    names = stored if config.names is None else _given(config.name, config.names, stored, where, faults)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UserError(f"{config.name}: class {twice[0]} is listed twice in {where}; give names that differ")
    return names


def _given(name: str, given: tuple[str, ...], stored: tuple[str, ...], where: str, faults: Faults) -> tuple[str, ...]:
    ordered = _in_order_of(stored, given)
    if ordered is not None:
        if ordered != given:
            faults.note(f"the ids follow the order of {where}, not that of names: {first_few(ordered, most=SHOWN)}")
        return ordered
    if not all(map(_NUMBER.fullmatch, stored)):
        given_few, stored_few = first_few(given, most=SHOWN), first_few(stored, most=SHOWN)
        raise UserError(
            f"{name}: names ({given_few}) are not the classes of {where} ({stored_few}); remove names; in a run, rename gives"
            " classes other names"
        )
    if len(given) != len(stored):
        raise UserError(
            f"{name}: names has {counted(len(given), 'class', 'classes')} and {where} has {len(stored)}; give one name for each"
        )
    return given


def _in_order_of(stored: Sequence[str], given: Sequence[str]) -> tuple[str, ...] | None:
    """The given names in the order of the stored ones, by their spelling or else whatever their case; None where they are
    not the same names."""
    for plain in (str, str.casefold):
        spelled = {plain(n).strip(): n for n in given}
        if len(spelled) == len(given) == len(stored) and set(spelled) == {plain(n).strip() for n in stored}:
            return tuple(spelled[plain(n).strip()] for n in stored)
    return None

"""What options of the command line may hold, and the refusal of those that nothing would read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from ddptrain.errors import UserError

_SHOWN = {"check": "--no-check", "overrides": "key=value"}


def natural(text: str) -> int:
    """An integer ≥ 0."""
    return _integer(text, 0)


def positive(text: str) -> int:
    """An integer ≥ 1."""
    return _integer(text, 1)


def _integer(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be an integer ≥ {least}, not {text!r}")
    return int(text)


def numbers(text: str) -> list[int]:
    """Two or more different integers ≥ 1, separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if len(set(parts)) < 2 or len(set(parts)) < len(parts) or not all(p.isdecimal() and int(p) for p in parts):
        raise argparse.ArgumentTypeError(f"must be two or more different integers ≥ 1, such as 1,2,4, not {text!r}")
    return [int(p) for p in parts]


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return value


def endpoint(text: str) -> str:
    """`HOST:PORT`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT with a port from 1 to 65535, not {text!r}")
    return text


def refuse_idle(args: argparse.Namespace, names: Sequence[str], where: str) -> None:
    """Refuse options that nothing would read.

    Args:
        names: the options, whose values are None or an empty list where they are not given.
        where: beside what they have no effect, such as "with --local".

    Raises:
        UserError: names the first that is given.
    """
    for name in names:
        if getattr(args, name) not in (None, []):
            raise UserError(f"{_SHOWN.get(name, '--' + name.replace('_', '-'))}: has no effect {where}; remove it")

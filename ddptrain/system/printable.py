"""Text from data and configs that a terminal or a spreadsheet displays and does not obey."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""`text` with every invisible character escaped, such as `\x1b` for the start of a terminal command.

    Args:
        lines: keep line ends; otherwise they are escaped too, so that a name cannot begin a line of its own.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or (lines and c == "\n") else ascii(c)[1:-1] for c in text)


def say(line: str) -> None:
    """Print a line on standard output."""
    print(printable(line), flush=True)


def warn(line: str) -> None:
    """Print a warning on standard error."""
    print(f"ddptrain: warning: {printable(line)}", file=sys.stderr, flush=True)


def guarded(cell: str) -> str:
    """Text for a cell of a CSV file, with a `'` in front where a spreadsheet would run it as a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """The text that `guarded` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 image`, `3 images`; `plural` is the noun with an s where it is not given."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def first_few(names: Sequence[str], noun: str = "", separator: str = ", ", most: int = 8) -> str:
    """The first names of a list, and how many more there are; `noun` is what one of them is called."""
    hidden = len(names) - most
    ending = "" if hidden == 1 or not noun else "es" if noun.endswith("s") else "s"
    more = f" and {hidden} more {noun}{ending}".rstrip() if hidden > 0 else ""
    return separator.join(names[:most]) + more


def listing(words: Sequence[str], conjunction: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    *others, last = words
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def age(seconds: float) -> str:
    """Seconds in the largest unit of which there are two: `90 s`, `2 min`, `3 h`, `5 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"

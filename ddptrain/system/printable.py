"""Text that a terminal shows and does not obey: names come from data and configs. No torch here: the launcher uses it too."""

from __future__ import annotations

import sys


def printable(text: str, *, lines: bool = False) -> str:
    r"""`text` with everything written out that is no visible character: `\x1b` for the start of an escape code.

    Args:
        lines: leave line ends as they are; else they are written out too, so that a name cannot begin a line of its own.
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

"""One table for every reader: the terminal, the log, Markdown, a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ddptrain.system.printable import printable

UNKNOWN = "unknown"
"""A cell of a column of numbers."""


class Table(NamedTuple):
    """Columns by name and the rows of cells: text, numbers, None or nan for no value."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def right(self) -> list[bool]:
        """The columns that are aligned to the right: those of numbers, also with a unit."""
        return [all(_numeric(row[i]) for row in self.rows) for i in range(len(self.columns))]

    def header(self) -> list[str]:
        """The names of the columns, characters that are not visible written out."""
        return [printable(name) for name in self.columns]

    def cells(self, decimals: int = 3) -> list[list[str]]:
        """The cells as text, characters that are not visible written out: `-` for no value."""
        return [[printable(_cell(value, decimals)) for value in row] for row in self.rows]

    def text(self, decimals: int = 3) -> str:
        """Aligned lines, a rule below the names of the columns."""
        header, cells, right = self.header(), self.cells(decimals), self.right()
        widths = [max(len(row[i]) for row in [header, *cells]) for i in range(len(header))]

        def aligned(row: Sequence[str]) -> str:
            padded = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right))
            return "  ".join(["", *padded]).rstrip()

        return "\n".join([aligned(header), "  " + "  ".join("-" * w for w in widths), *map(aligned, cells)])

    def markdown(self) -> str:
        """Lines of Markdown."""
        rows = [self.header(), ["---"] * len(self.columns), *self.cells()]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def is_number(value: Any) -> bool:
    """Whether a cell is a number, not a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numeric(value: Any) -> bool:
    return is_number(value) or value in (None, UNKNOWN) or str(value).endswith((" %", " GB"))


def _cell(value: Any, decimals: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)

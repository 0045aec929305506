"""`history.csv`, a row an evaluation, and `summary.json`, the outcome. Both are replaced whole, never half-written."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.errors import UserError
from ddptrain.files import write_text


class History:
    """The table `history.csv` of a run; its first column is `step`.

    The columns are those of the first row; a name that comes later is added at the end, empty in the rows before.

    Args:
        path: the file; None keeps nothing (any rank but 0).
        resumed: the step of the checkpoint that the run goes on from: rows after it are dropped, they will come
            again. None for a fresh run, which starts an empty table.

    Raises:
        UserError: the file to go on with is not such a table.
    """

    def __init__(self, path: Path | None, resumed: int | None = None) -> None:
        self._path = path
        self.columns: list[str] = []
        self.rows: list[dict[str, str]] = []
        if path is not None and resumed is not None and path.exists():
            self._read(path, resumed)

    def _read(self, path: Path, resumed: int) -> None:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            self.columns = list(reader.fieldnames or [])
            for row in reader:
                try:
                    step = int(row["step"])
                    if None in row or None in row.values():
                        raise ValueError
                except (KeyError, ValueError):
                    where = f"{path}:{reader.line_num}"
                    raise UserError(f"{where}: not a row of a run's history; mend the line or move the file") from None
                if step <= resumed:
                    self.rows.append(row)

    @property
    def table(self) -> dict[str, list[float]]:
        """The columns by name, `step` first; empty cells as nan."""
        return {name: [float(row.get(name) or "nan") for row in self.rows] for name in self.columns}

    def append(self, row: Mapping[str, Any]) -> None:
        """Add an evaluation; it replaces a row of the same step (evaluated again after a resume).

        Args:
            row: `step` and what was measured, flat. None and what is not finite become empty cells.
        """
        if self._path is None:
            return
        self.columns += [name for name in row if name not in self.columns]
        cells = {name: _cell(value) for name, value in row.items()}
        self.rows = [r for r in self.rows if r["step"] != cells["step"]] + [cells]
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self._path, out.getvalue())


def _cell(value: Any) -> str:
    value = plain(value)
    return "" if value is None else str(value)


def plain(value: Any) -> Any:
    """The value in JSON's types: numpy scalars unpacked, numbers that are not finite as None.

    Raises:
        TypeError: something that is no number, text, list or mapping (a tensor too: it would hide a synchronisation).
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [plain(v) for v in value]
    raise TypeError(f"{type(value).__name__} cannot stand in a summary or a history")


def write_summary(path: Path, values: Mapping[str, Any]) -> None:
    """Write `summary.json` whole: a reader sees the old one or the new one.

    Args:
        path: the file; its folder exists.
        values: flat metrics (`AP` … in 0..1, `step`, `epoch`, `samples`, `images_per_second`) and `mixture`, the rows
            of `Ledger.summary`.
    """
    write_text(path, json.dumps(plain(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

"""`history.csv`, one row per evaluation, and `summary.json`, the outcome. Both are replaced whole, never half-written."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.system.files import write_text
from ddptrain.system.printable import counted, guarded, unguarded

SHOWN = 5
"""Faulty lines of a history that are named."""


class History:
    """The table `history.csv` of a run; its first column is `step`.

    The columns are those of the first row; a name that comes later is added at the end, empty in the rows before.

    Args:
        path: the file; None keeps nothing (any rank but 0).
        resumed: the step of the checkpoint that the run resumes from: rows after it are dropped, they will come
            again. None for a fresh run, which starts an empty table.
        source: the table of another run whose checkpoint that is, used where `path` does not exist yet.
        recount: (samples up to the checkpoint, samples of a step): the steps before it were recounted.

    Attributes:
        faults: lines of the file that are not rows of such a table, `line 7`.
    """

    def __init__(
        self,
        path: Path | None,
        resumed: int | None = None,
        source: Path | None = None,
        recount: tuple[int, int] | None = None,
    ) -> None:
        self._path = path
        self.columns: list[str] = []
        self.rows: list[dict[str, str]] = []
        self.faults: list[str] = []
        self._settled = True
        if path is None or resumed is None:
            return
        taken = source is not None and not path.exists()
        self._read(source if taken and source is not None else path)
        if recount is not None:
            self.rows = _recounted(self.rows, resumed, *recount)
        self.rows = [row for row in self.rows if int(row["step"]) <= resumed]
        self._settled = not (taken or self.faults or recount)

    def _read(self, path: Path) -> None:
        """The rows of a file in the order of steps, the last one of each step."""
        rows: dict[int, dict[str, str]] = {}
        try:
            with path.open(newline="", encoding="utf-8", errors="replace") as file:
                reader = csv.DictReader(file)
                reader.fieldnames = columns = [unguarded(name) for name in reader.fieldnames or ()]
                if "step" not in columns or len(set(columns)) < len(columns):
                    self.faults.append("line 1 and all behind it")
                    return
                self.columns = columns
                for row in reader:
                    step = _step(row)
                    if step is None or step in rows:
                        self.faults.append(f"line {reader.line_num}")
                    if step is not None:
                        rows[step] = row
        except FileNotFoundError:
            return
        except (csv.Error, OSError) as e:
            self.faults.append(str(e))
        self.rows = [rows[step] for step in sorted(rows)]

    def settle(self, report: Callable[[str], None]) -> None:
        """Move a file with faults aside, report it, and write its good rows, or those that another run has brought.

        Raises:
            OSError: the folder cannot be written.
        """
        if self._settled or self._path is None:
            return
        self._settled = True
        if self.faults and self._path.exists():
            aside = next(p for n in count(1) if not (p := self._path.with_name(f"history.broken-{n}.csv")).exists())
            self._path.rename(aside)
            more = f" and {len(self.faults) - SHOWN} more" if len(self.faults) > SHOWN else ""
            report(
                f"warning: {self._path}: not a row of a run's history: {', '.join(self.faults[:SHOWN])}{more}; the file is now "
                f"{aside.name}, its other {counted(len(self.rows), 'row is', 'rows are')} kept"
            )
        self._write()

    @property
    def table(self) -> dict[str, list[float]]:
        """The columns by name, `step` first; cells without a number as nan."""
        return {name: [_number(row.get(name)) for row in self.rows] for name in self.columns}

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
        self._write()

    def _write(self) -> None:
        assert self._path is not None
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns, restval="", lineterminator="\n")
        writer.writerow({name: guarded(name) for name in self.columns})
        writer.writerows(self.rows)
        write_text(self._path, out.getvalue())


def history_of(source: Path) -> Path:
    """Where the history of a run stands, of which `source` is the folder or a checkpoint."""
    if source.is_file():
        source = source.parent
    return (source.parent if source.name == "checkpoints" else source) / "history.csv"


def _step(row: Mapping[str | None, str | None]) -> int | None:
    """The step of a row, None where it is malformed."""
    try:
        step = int(row["step"] or "")
    except ValueError:
        return None
    whole = None not in row and None not in row.values() and not any("\ufffd" in str(cell) for cell in row.values())
    return step if step >= 0 and whole else None


def _recounted(rows: Sequence[dict[str, str]], resumed: int, samples: int, of_a_step: int) -> list[dict[str, str]]:
    """The rows up to the checkpoint, their steps those of another size that their `samples` make."""
    seen = [_number(row.get("samples")) for row in rows]
    return [row | {"step": str(min(round(n / of_a_step), resumed))} for row, n in zip(rows, seen) if n <= samples]


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan


def _cell(value: Any) -> str:
    value = plain(value)
    return "" if value is None else str(value)


def plain(value: Any) -> Any:
    """The value in JSON's types: numpy scalars unpacked, numbers that are not finite as None.

    Raises:
        TypeError: anything but a number, text, list or mapping (a tensor too: it would hide a synchronisation).
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
    raise TypeError(f"{type(value).__name__} cannot be part of a summary or a history")


def write_summary(path: Path, values: Mapping[str, Any]) -> None:
    """Write `summary.json` whole: a reader sees the old one or the new one.

    Args:
        path: the file; its folder exists.
        values: flat metrics (`AP` … in 0..1, `step`, `epoch`, `samples`, `images_per_second`) and `mixture`, the rows
            of `Ledger.summary`.
    """
    write_text(path, json.dumps(plain(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def amend_summary(path: Path, step: int, values: Mapping[str, Any]) -> None:
    """Add values to the summary of a step; nothing where there is none.

    Raises:
        OSError, ValueError: it could not be read or written; the old one stays.
    """
    if path.is_file() and (summary := json.loads(path.read_text(encoding="utf-8"))).get("step") == step:
        write_summary(path, {**summary, **values})

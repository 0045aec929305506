"""`metrics.jsonl`: a line for each logging interval and each evaluation, what the trackers get.

    {"kind": "train", "step": 50, "seconds": 1735689600.123, "train/loss": 2.31, "optim/lr/weights": 0.01, …}
    {"kind": "val", "step": 100, "seconds": 1735689612.456, "val/AP": 0.41, "data/streets/val/AP": 0.38, …}

`seconds` is the time of the line since 1970. What is not finite is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import time
from typing import Any

from ddptrain.reporting.history import plain
from ddptrain.system.files import append_bytes, replacing

NAME = "metrics.jsonl"
TRAIN, VAL = "train", "val"


class MetricsLog:
    """Appends lines to the file of a run.

    Args:
        path: the file; None keeps nothing (any rank but 0).
        resumed: the step of the checkpoint that the run resumes from: lines after it are dropped, they come again. None for a
            fresh run, which starts an empty file.
        unjudged: the evaluation of that step comes again, too.
        counted: that step as the lines count it, where the steps before it were recounted; they are renumbered.

    Attributes:
        faults: number of its lines that are none of a run; the end of one that was cut off does not count.
    """

    def __init__(
        self, path: Path | None, resumed: int | None = None, unjudged: bool = False, counted: int | None = None
    ) -> None:
        self._path, self._resumed, self._unjudged, self._counted = path, resumed, unjudged, counted
        self.faults = 0

    def settle(self) -> None:
        """Begin the file: with the lines that still hold, or with none.

        Raises:
            OSError: it cannot be written.
        """
        if self._path is None:
            return
        with replacing(self._path) as out:
            if self._resumed is not None and self._path.is_file():
                with self._path.open(encoding="utf-8", errors="replace") as lines:
                    out.writelines(self._kept(line, self._resumed).encode() for line in lines)

    def _kept(self, line: str, resumed: int) -> str:
        """A line that still holds, its step as steps are counted now; empty for the others."""
        row = _row(line)
        if row is None:
            self.faults += line.endswith("\n")
            return ""
        kind, step = row["kind"], row["step"]
        end = resumed if self._counted is None else self._counted
        if step > end or (step == end and kind == VAL and self._unjudged):
            return ""
        return line if self._counted is None else _line(row | {"step": round(step * resumed / max(end, 1))})

    def append(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Write a line.

        Raises:
            OSError: it cannot be written; the next ones are tried again.
        """
        if self._path is None:
            return
        row = plain({"kind": kind, "step": step, "seconds": round(time(), 3), **values})
        append_bytes(self._path, _line(row).encode())


def read_metrics(run: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run folder in their order; none without the file."""
    if (run / NAME).is_file():
        with (run / NAME).open(encoding="utf-8", errors="replace") as lines:
            yield from (row for line in lines if (row := _row(line)) is not None)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and row.get("kind") in (TRAIN, VAL) and isinstance(row.get("step"), int)
    return row if whole else None

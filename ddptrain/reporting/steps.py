"""`steps.csv`: a row for every step that was tried, in full precision: for curves, `ddptrain diff` and `ddptrain replay`.

    step,position,updated,loss,box,cls,dfl,gradient_norm,normalizer
    1,0,1,19.68030548095703,7.108…,8.355…,4.217…,52.14…,31.5…

`step` is the number of the step, `position` that of its first sample in the stream (each row has another one, also after a step
that was skipped), `updated` 0 where it was skipped. The parts of the loss and their sum are divided by the normalizer. A number
has as many digits as it takes to read the same one back. Where a run resumes with other parts of its loss, a line with the new
names of the columns comes before their first row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ddptrain.system.files import append_bytes, replacing
from ddptrain.system.printable import guarded, unguarded

NAME = "steps.csv"
FIRST, LAST = ("step", "position", "updated", "loss"), ("gradient_norm", "normalizer")


class StepLog:
    """Takes rows in memory, which costs a step next to nothing, and appends them to the file on request.

    Args:
        path: the file; None keeps nothing (any rank but 0).
        position: of the checkpoint that the run resumes from: rows from there on are dropped, they will come again. None for
            a fresh run, which starts an empty file.
        source: the file of another run whose checkpoint that is, used where `path` does not exist yet.

    Attributes:
        faults: number of lines of the file that are not rows and were dropped; a last one that was cut off does not count.
    """

    def __init__(self, path: Path | None, position: int | None = None, source: Path | None = None) -> None:
        self._path, self._position, self._source = path, position, source
        self._header = ""
        self._rows: list[tuple[int, int, bool, dict[str, float], float, float]] = []
        self.faults = 0

    def settle(self) -> None:
        """Begin the file: with the rows that still hold, or with none.

        Raises:
            OSError: it cannot be written.
        """
        if self._path is None:
            return
        before = self._path if self._path.is_file() or self._source is None else self._source
        with replacing(self._path) as out:
            if self._position is not None and before.is_file():
                with before.open(encoding="utf-8", errors="replace") as lines:
                    out.writelines(line.encode() for line in self._whole(lines, self._position))

    def _whole(self, lines: Iterable[str], end: int) -> Iterator[str]:
        """The lines that are rows of positions before `end`, in rising order, and the headers before them."""
        header, columns, last = "", 0, -1
        for line in lines:
            cells, ended = line.split(","), line.endswith("\n")
            if ended and cells[0] == FIRST[0]:
                header, columns = line, len(next(csv.reader([line])))
            elif ended and len(cells) == columns and cells[1].isdecimal() and int(cells[1]) > last:
                last = int(cells[1])
                if last < end:
                    if header != self._header:
                        self._header = header
                        yield header
                    yield line
            else:
                self.faults += ended

    def add(
        self, step: int, position: int, updated: bool, parts: dict[str, float], gradient_norm: float, normalizer: float
    ) -> None:
        """Take a row."""
        if self._path is not None:
            self._rows.append((step, position, updated, parts, gradient_norm, normalizer))

    def write(self) -> None:
        """Append the rows since the last call.

        Raises:
            OSError: the file cannot be written; the rows are kept for the next call.
        """
        if self._path is None or not self._rows:
            return
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow([*FIRST, *map(guarded, self._rows[0][3]), *LAST])
        text = "".join(map(_line, self._rows))
        append_bytes(self._path, (text if header.getvalue() == self._header else header.getvalue() + text).encode())
        self._header, self._rows = header.getvalue(), []


def _line(row: tuple[int, int, bool, Mapping[str, float], float, float]) -> str:
    step, position, updated, parts, gradient_norm, normalizer = row
    numbers = (sum(parts.values()), *parts.values(), gradient_norm, normalizer)
    return f"{step},{position},{updated:d},{','.join(map(repr, numbers))}\n"


def read_steps(run: Path) -> Iterator[dict[str, str]]:
    """The rows of a run folder in the order of positions, cells as text by the names of the columns; none without the file."""
    if not (run / NAME).is_file():
        return
    names: list[str] = []
    with (run / NAME).open(newline="", encoding="utf-8", errors="replace") as file:
        for cells in csv.reader(file):
            if cells[:1] == [FIRST[0]]:
                names = [unguarded(name) for name in cells]
            elif len(cells) == len(names) and cells[0].isdecimal() and cells[1].isdecimal():
                yield dict(zip(names, cells))

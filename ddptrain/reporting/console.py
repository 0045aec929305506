"""What a run reports, to a person (a live line on a terminal, plain lines elsewhere) and always to `log.txt`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal, TextIO

from ddptrain.reporting.table import Table
from ddptrain.reporting.terminal import Terminal
from ddptrain.reporting.timing import Reading, duration
from ddptrain.system.printable import printable

Level = Literal["quiet", "normal", "verbose"]


class Console:
    """The lines of rank 0.

    Args:
        log: `log.txt`, appended to, each line with its time; None for no log. Lines that cannot be written (disk full) are
            lost, which is reported once.
        total_steps: length of the run.
        steps_per_epoch: may be a fraction.
        stream: the terminal or file that a person reads; None for silence (any rank but 0, with no log).
        level: what they read: `quiet`, warnings and the last line; `verbose`, a line for every step, too. The log has the
            same lines at each.
    """

    def __init__(
        self,
        log: Path | None,
        *,
        total_steps: int,
        steps_per_epoch: float,
        stream: TextIO | None = sys.stdout,
        level: Level = "normal",
    ) -> None:
        # a file's name may hold bytes that are not UTF-8; unbuffered, or a line that failed would come back at every other one
        self._log = log.open("ab", buffering=0) if log is not None else None
        self._log_failed = False
        self._total, self._per_epoch = total_steps, steps_per_epoch
        self._stream, self._level = stream, level
        live = stream is not None and stream.isatty() and level != "quiet"
        self._terminal = Terminal(stream, total_steps) if stream is not None and live else None

    def line(self, text: str) -> None:
        """Report `text`, in one line, also where names in it hold line breaks."""
        text = printable(text)
        self._write(text)
        self._show(text, text.startswith("warning: "))

    def last(self, text: str) -> None:
        """Report how the run has ended, also where little is printed."""
        text = printable(text)
        self._write(text)
        self._show(text, True)

    def table(self, title: str, table: Table) -> None:
        """Report a table under its title."""
        title = printable(title)
        text = f"{title}\n{table.text()}"
        self._write(text)
        if self._terminal is not None:
            self._terminal.table(title, table)
        else:
            self._show(text)

    def step(self, step: int, losses: Mapping[str, float], gradient_norm: float) -> None:
        """`step` steps are done; loss parts and gradient of the last one. Called at every step; costs next to nothing."""
        if self._level == "verbose":
            self._show(f"  step {step}/{self._total}  {_parts(losses)}  gradient norm {gradient_norm:.4g}")
        if self._terminal is not None:
            self._terminal.step(step)

    def progress(self, step: int, losses: Mapping[str, float], reading: Reading) -> None:
        """A log step.

        Args:
            step: steps done.
            losses: mean loss parts by name.
            reading: of the window that ends here.
        """
        epoch = f"{step / self._per_epoch:.1f}/{round(self._total / self._per_epoch, 1):g}"
        rate = reading.images_per_second
        speed = f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
        numbers = f"{_parts(losses)}  {speed} img/s  data {reading.data_wait:.0%}  ETA {duration(reading.eta_seconds)}"
        text = f"epoch {epoch}  step {step}/{self._total}  {numbers}"
        self._write(text)
        if self._terminal is not None:
            self._terminal.progress(step, epoch, numbers)
        else:
            self._show(text)

    def status(self, text: str) -> None:
        """What happens instead of training (`evaluating`), shown on a terminal only; empty for training."""
        if self._terminal is not None:
            self._terminal.status(text)

    def close(self) -> None:
        """End the live line and the log."""
        if self._terminal is not None:
            self._terminal.close()
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self, text: str, important: bool = False) -> None:
        if self._terminal is not None:
            self._terminal.line(text)
        elif self._stream is not None and (important or self._level != "quiet"):
            print(text, file=self._stream, flush=True)

    def _write(self, text: str) -> None:
        if self._log is not None:
            now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
            lines = "".join(f"{now}  {part}".rstrip() + "\n" for part in text.splitlines())
            try:
                self._log.write(lines.encode("utf-8", "backslashreplace"))
            except OSError as e:
                if not self._log_failed:
                    self._log_failed = True
                    self._show(f"warning: {self._log.name}: lines are lost ({e.strerror}); training continues", True)


def _parts(losses: Mapping[str, float]) -> str:
    return " ".join(f"{printable(name)} {value:.3f}" for name, value in losses.items())

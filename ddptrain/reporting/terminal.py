"""A run on a terminal: a live line and coloured tables."""

from __future__ import annotations

import math
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

from ddptrain.reporting.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType


class Terminal:
    """A live line at the bottom of a terminal, drawn at most five times a second; all else scrolls by above it."""

    def __init__(self, stream: TextIO, total_steps: int) -> None:
        from rich.console import Console as RichConsole
        from rich.live import Live

        self._total = total_steps
        self._console = RichConsole(file=stream)
        self._live = Live(console=self._console, auto_refresh=False)
        self._step, self._epoch, self._numbers, self._status = 0, "", "", ""
        self._drawn = -math.inf

    def line(self, text: str) -> None:
        """Print above the live line."""
        self._console.print(text, markup=False, highlight=False, emoji=False)

    def table(self, title: str, table: Table) -> None:
        """Print above the live line."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD)
        for name, right in zip(table.header(), table.right()):
            drawn.add_column(Text(name, "cyan"), justify="right" if right else "left", overflow="fold")
        for row in table.cells():
            drawn.add_row(*(Text(cell) for cell in row))
        self._console.print(drawn)

    def step(self, step: int) -> None:
        """Redraw now and then."""
        self._step = step
        if perf_counter() - self._drawn > 0.2:
            self._draw()

    def progress(self, step: int, epoch: str, numbers: str) -> None:
        """New numbers on the live line."""
        self._step, self._epoch, self._numbers = step, epoch, numbers
        self._draw()

    def status(self, text: str) -> None:
        """In the place of the numbers."""
        self._status = text
        self._draw()

    def close(self) -> None:
        """Leave the last state on the terminal."""
        if self._live.is_started:
            self._draw()
            self._live.stop()

    def _draw(self) -> None:
        self._live.start()  # only now: it hides the cursor; a second call does nothing
        self._live.update(self._renderable(), refresh=True)
        self._drawn = perf_counter()

    def _renderable(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table as RichTable
        from rich.text import Text

        left = Text(f"epoch {self._epoch}" if self._epoch else "starting", "bold")
        numbers = Text(self._status, "yellow") if self._status else Text(self._numbers, "green")
        right = Text.assemble(f"{self._step}/{self._total}  ", numbers)
        room = self._console.width - left.cell_len - right.cell_len - 2
        cells: list[RenderableType] = [left, right]
        if room >= 4:
            cells.insert(1, ProgressBar(self._total, self._step, width=min(room, 30)))
        grid = RichTable.grid(padding=(0, 1))
        for _ in cells:
            grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row(*cells)
        return grid

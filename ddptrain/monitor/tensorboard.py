"""TensorBoard event files of a run: curves, pictures and text. A resumed run goes on with the same curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Board(Protocol):
    """Where curves, pictures and text go. Every call belongs to a log step; none is meant for every step."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One point of each curve, plain floats by tag; tags with one prefix (`loss/box`) are shown together."""

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """A picture, uint8 `[H, W, 3]` RGB."""

    def text(self, tag: str, text: str, step: int) -> None:
        """Markdown."""

    def flush(self) -> None:
        """Everything so far on disk; called when a checkpoint is written, so that no curve has a gap on resume."""

    def close(self) -> None:
        """Flush and end."""


class NullBoard:
    """A board that keeps nothing: TensorBoard is off, or this is not rank 0."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Nothing."""

    def text(self, tag: str, text: str, step: int) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class TensorBoard:
    """A board of TensorBoard event files.

    Args:
        folder: made if need be; each start of a run adds one file.
        resumed: the step of the checkpoint that the run goes on from; TensorBoard then hides what an earlier process
            wrote for later steps. None for a fresh run.
        report: told in one line when the files cannot be written; from then on the board keeps nothing.
    """

    def __init__(self, folder: Path, resumed: int | None = None, report: Callable[[str], None] = print) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._summary, self._point = Summary, Summary.Value
        # the points of the checkpoint's own step were written before it and stay
        purge = None if resumed is None else resumed + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=30)
        self._folder, self._report, self._lost = folder, report, False

    def _write(self, call: Callable[..., object], *args: Any, **options: Any) -> None:
        if self._lost:
            return
        try:
            call(*args, **options)
        except OSError as e:  # raised by the writer's thread at some earlier call, and from then on by every call
            self._lost = True
            self._report(f"warning: {self._folder}: nothing more is written here ({e.strerror}); training goes on")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Points of the curves; what is not finite is left out, since TensorBoard cannot draw it."""
        points = [self._point(tag=tag, simple_value=value) for tag, value in values.items() if math.isfinite(value)]
        # one event for all: an event costs the loop 30 µs, a value in it 1 µs
        self._write(self._writer._get_file_writer().add_summary, self._summary(value=points), step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """A picture, uint8 `[H, W, 3]` RGB."""
        self._write(self._writer.add_image, tag, image, step, dataformats="HWC")

    def text(self, tag: str, text: str, step: int) -> None:
        """Markdown."""
        self._write(self._writer.add_text, tag, text, step)

    def flush(self) -> None:
        """Everything so far on disk."""
        self._write(self._writer.flush)

    def close(self) -> None:
        """Flush and end."""
        self._write(self._writer.close)


def open_board(folder: Path, *, enabled: bool, resumed: int | None = None, report: Callable[[str], None] = print) -> Board:
    """The board of a run.

    Args:
        folder: of the event files.
        enabled: false where the config says so, or on any rank but 0.
        resumed, report: see `TensorBoard`.
    """
    return TensorBoard(folder, resumed, report) if enabled else NullBoard()

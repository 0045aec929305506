"""TensorBoard event files of a run: curves, pictures and text. A resumed run goes on with the same curves."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Mapping
from io import BytesIO
from itertools import count
from pathlib import Path
from time import time
from typing import Any

import numpy as np

from ddptrain.reporting.pictures import encode
from ddptrain.system.printable import counted


class Board:
    """Where curves, pictures and text go. Every call belongs to a log step; none is meant for every step. This one keeps
    nothing: TensorBoard is off, or this is not rank 0."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One point of each curve, plain floats by tag; tags with one prefix (`loss/box`) are shown together."""

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """A picture, uint8 `[H, W, 3]` RGB."""

    def text(self, tag: str, text: str, step: int) -> None:
        """Markdown."""

    def close(self) -> None:
        """End."""


class EventFile:
    """One file of TensorBoard events, opened when something is written: what cannot be written leaves no trace in it, and the
    next event is tried anew. (TensorBoard's own writer has a thread, which ends at the first error.)

    Args:
        folder: made if need be.
        resumed: see `TensorBoard`.
    """

    def __init__(self, folder: Path, resumed: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._writer = Event, RecordWriter
        self._folder, self._fd, self._size = folder, -1, 0
        first = [Event(wall_time=time(), file_version="brain.Event:2")]
        if resumed is not None:
            # the points of the checkpoint's own step were written before it and stay
            start = SessionLog(status=SessionLog.START)
            first.append(Event(wall_time=time(), step=resumed + 1, session_log=start))
        self._head = b"".join(map(self._record, first))

    def _record(self, event: Any) -> bytes:
        out = BytesIO()
        self._writer(out).write(event.SerializeToString())
        return out.getvalue()

    def add(self, summary: Any, step: int) -> None:
        """Write a summary, a protocol buffer, whole or not at all.

        Raises:
            OSError: it cannot be written now.
        """
        if self._fd < 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            stem = f"events.out.tfevents.{int(time()):010d}.{socket.gethostname()}.{os.getpid()}"
            path = next(p for n in count() if not (p := self._folder / f"{stem}.{n}").exists())
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        data = self._record(self._event(wall_time=time(), step=step, summary=summary))
        data = data if self._size else self._head + data
        done = 0
        while done < len(data):  # at its place: over what an attempt that failed has left
            done += os.pwrite(self._fd, data[done:], self._size + done)
        self._size += done

    def close(self) -> None:
        """End the file where the last whole event ends."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.ftruncate(fd, self._size)
            finally:
                os.close(fd)


class TensorBoard(Board):
    """A board of TensorBoard event files.

    Args:
        folder: made if need be; each start of a run adds one file.
        resumed: the step of the checkpoint that the run goes on from; TensorBoard then hides what an earlier process
            wrote for later steps. None for a fresh run.
        report: called with one line when the files cannot be written, and when they can be again.
    """

    def __init__(self, folder: Path, resumed: int | None = None, report: Callable[[str], None] = print) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import summary  # takes a second to import

        self._summary, self._point, self._make_text = Summary, Summary.Value, summary.text
        self._folder, self._report, self._lost = folder, report, 0
        self._file = EventFile(folder, resumed)

    def _write(self, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except OSError as e:
            if not self._lost:
                self._report(f"warning: {self._folder}: not written, tried again later ({e.strerror}); training goes on")
            self._lost += 1
        else:
            if self._lost:
                self._report(f"{self._folder}: written again; {counted(self._lost, 'event is', 'events are')} lost")
            self._lost = 0

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Points of the curves; what is not finite is left out, since TensorBoard cannot draw it."""
        points = [self._point(tag=tag, simple_value=value) for tag, value in values.items() if math.isfinite(value)]
        # one event for all: an event costs the loop 0.1 ms, a value in it 3 µs
        self._write(self._file.add, self._summary(value=points), step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        height, width = image.shape[:2]
        # not PNG: the sum of a record is computed in Python, at 0.4 s a megabyte
        content = self._summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encode(image, ".jpg"))
        self._write(self._file.add, self._summary(value=[self._point(tag=tag, image=content)]), step)

    def text(self, tag: str, text: str, step: int) -> None:
        self._write(self._file.add, self._make_text(tag, text), step)

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as e:
            self._report(f"warning: {self._folder}: not written to its end ({e.strerror})")

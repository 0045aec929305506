"""TensorBoard event files: written event by event, and cut back where a run is resumed."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from time import time
from typing import Any, BinaryIO

from ddptrain.system.files import replacing


class EventFile:
    """One file of TensorBoard events, opened when something is written: what cannot be written leaves no trace in it, and the
    next event is tried again. (TensorBoard's own writer has a thread, which ends at the first error.)

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
            # for a TensorBoard that is open: it forgets the points that `cut_back` has taken away
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


def cut_back(folder: Path, keep: Callable[[int, list[str]], int | None]) -> None:
    """Take events out of all files of a folder, and what is left of an event that was not completely written.

    Args:
        keep: gives the step at which an event of a step and of some tags stays; None where it does not stay.

    Raises:
        OSError: a file cannot be read or written; it stays as it was.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    for path in sorted(folder.glob("events.out.tfevents.*")):
        with path.open("rb") as file, replacing(path) as out:
            for record in _records(file):
                event = Event.FromString(record[12:-4])
                step = keep(event.step, [value.tag for value in event.summary.value])
                if step == event.step:
                    out.write(record)
                elif step is not None:
                    event.step = step
                    RecordWriter(out).write(event.SerializeToString())


def _records(file: BinaryIO) -> Iterator[bytes]:
    """Each whole record with its frame: its length, the sum of that, its content, the sum of this."""
    while len(head := file.read(12)) == 12:
        (length,) = struct.unpack("<Q", head[:8])
        body = file.read(length + 4)
        if len(body) < length + 4:
            return
        yield head + body

"""Samples on their way to worker processes that do not descend from the trainer: their arrays lie in memory once."""

from __future__ import annotations

import mmap
import os
import pickle
from multiprocessing import reduction
from typing import Any

_ALIGNMENT = 64


class Shared:
    """An object whose numpy arrays all processes that it is sent to map from one file in memory, as forked ones would share
    them: what one of them writes, it alone sees."""

    def __init__(self, value: Any) -> None:
        """Copy the arrays of `value` into the file; raises what `pickle` raises where it cannot be sent."""
        buffers: list[pickle.PickleBuffer] = []
        self._pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        self._file = os.memfd_create("samples")
        self._places: list[tuple[int, int]] = []
        end = 0
        for buffer in buffers:
            raw = buffer.raw()
            self._places.append((end, raw.nbytes))
            written = 0
            while written < raw.nbytes:
                written += os.pwrite(self._file, raw[written:], end + written)
            end += -(-raw.nbytes // _ALIGNMENT) * _ALIGNMENT
        self._size = max(end, 1)
        os.ftruncate(self._file, self._size)

    def open(self) -> Any:
        """The object, in a process that it was sent to."""
        pages = memoryview(mmap.mmap(self._file, self._size, access=mmap.ACCESS_COPY))
        os.close(self._file)
        return pickle.loads(self._pickled, buffers=[pages[start : start + size] for start, size in self._places])

    def close(self) -> None:
        """Let go of the file, in the process that made it; those that have opened it keep theirs."""
        os.close(self._file)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": reduction.DupFd(self._file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_file": state["_file"].detach()}

"""The file of a plan, mapped into memory.

    head      `HEAD` bytes: the plan's key, a checksum of the stamps
    stamps    int64 `[N, STAMP]`: the files when they were packed
    arrays    from the next whole page on, where `Plan.ends` says

It gets its name, or its place is told, only once it is whole, so that what can be opened is complete; the stamps tell whether
it is still what the files would give.
"""

from __future__ import annotations

import math
import mmap
import os
import zlib
from typing import Any

import numpy as np

from ddptrain.data.packed.plan import STAMP, Plan
from ddptrain.data.tables.base import I64

HEAD = 64
_READ_AHEAD = getattr(mmap, "MADV_WILLNEED", None)


def head_of(plan: Plan, stamps: I64) -> bytes:
    """The first bytes of a file, with the stamps behind."""
    return f"{plan.key} {zlib.crc32(stamps.tobytes()):08x}\n".encode().ljust(HEAD, b"\0") + stamps.tobytes()


def body_start(count: int) -> int:
    """Where the arrays of so many files begin."""
    return -(-(HEAD + count * STAMP * 8) // mmap.PAGESIZE) * mmap.PAGESIZE


def size_of_file(plan: Plan) -> int:
    """Bytes of the whole file."""
    return body_start(len(plan)) + int(plan.ends[-1])


def read_stamps(file: int, plan: Plan) -> I64 | None:
    """The stamps in an open file; None where it is not the whole file of this plan."""
    size = HEAD + len(plan) * STAMP * 8
    start = os.pread(file, size, 0)
    if len(start) < size or os.fstat(file).st_size != size_of_file(plan):
        return None
    stamps = np.frombuffer(start, np.int64, offset=HEAD).reshape(-1, STAMP)
    return stamps if head_of(plan, stamps) == start else None


class Packed:
    """The arrays of a plan; processes to which it is sent map the same file."""

    def __init__(self, path: str, plan: Plan, stamps: I64) -> None:
        """
        Args:
            path: the file, whole.
            stamps: those in it.
        """
        self.path = path
        self._halved, self._shapes = plan.halved, plan.shapes
        self._there = stamps[:, -1] > 0
        self._starts = plan.ends[:-1] + body_start(len(plan))
        self._map()

    def get(self, file: int, halved: int = 0) -> np.ndarray | None:
        """The array of a file, which must not be written into; None where there is none, or one that is halved differently."""
        if not self._there[file] or self._halved[file] != halved:
            return None
        shape, start = self._shapes[file].tolist(), int(self._starts[file])
        end = start + math.prod(shape)
        if _READ_AHEAD is not None:
            page = start - start % mmap.PAGESIZE
            self._pages.madvise(_READ_AHEAD, page, end - page)
        return self._bytes[start:end].reshape(shape)

    def _map(self) -> None:
        with open(self.path, "rb") as file:
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(self._pages, np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_pages", "_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._map()

"""What is packed: an array for each file of a dataset, as its reader gives it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.data.images.read import decoders
from ddptrain.data.tables.base import I64, Mask, Paths

ALIGNMENT = 64
"""Every array begins at a multiple of so many bytes."""
STAMP = 4
"""Numbers of a stamp: size, time of the last write and of the last change of any kind in nanoseconds, and whether there is an
array of the file."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What one file holds: arrays of uint8, one for each of N files of a dataset.

    Attributes:
        kind: what they are: `images`, `masks` or `depth maps`.
        dataset: number of the dataset among those of its samples.
        paths: the files.
        shapes: int64 `[N, 2]` or `[N, 3]`: of each array.
        halved: uint8 `[N]`: how often each image is halved as it is decoded, see `Pixels`.
        used: bool `[N]`: the files of which there is an array.
        read: the array of a file; raises `BadImage`.
        about: what the arrays depend on beside their files, plain values.
    """

    kind: str
    dataset: int
    paths: Paths
    shapes: I64
    halved: np.ndarray
    used: Mask
    read: Callable[[int], np.ndarray]
    about: Sequence[Any] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def lengths(self) -> I64:
        """int64 `[N]`: bytes of each array."""
        return np.where(self.used, self.shapes.prod(1), 0)

    @cached_property
    def ends(self) -> I64:
        """int64 `[N + 1]`: where each array begins, from the beginning of the first one on, and where the last one ends."""
        return np.append(0, np.cumsum(-(-self.lengths // ALIGNMENT) * ALIGNMENT))

    @cached_property
    def key(self) -> str:
        """32 hexadecimal digits of all that the arrays depend on but what the files hold."""
        first = os.path.abspath(self.paths[0]) if len(self) else ""  # the others lie beside it, or are absolute, too
        digest = hashlib.blake2b(json.dumps([self.kind, first, *self.about, _version()]).encode(), digest_size=16)
        for column in (self.paths.text, self.paths.offsets, self.shapes, self.halved, self.used):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def stamps(self) -> I64:
        """int64 `[N, STAMP]`: how the files are now; zeros for one that is not there, or not used."""
        paths, out = self.paths.encoded(), np.zeros((len(self), STAMP), np.int64)
        used = np.flatnonzero(self.used)
        with ThreadPoolExecutor(16) as pool:  # on network storage the time goes into waiting
            rows = pool.map(lambda part: [_stamp(paths[i]) for i in part.tolist()], np.array_split(used, len(used) // 500 + 1))
            out[used, :-1] = np.array([row for part in rows for row in part], np.int64).reshape(-1, STAMP - 1)
        return out


def _stamp(path: bytes) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@cache
def _version() -> str:
    """Of all that decodes: arrays of another version of it are not taken for those of this one."""
    data = Path(__file__).parents[1]
    sources = [p for room in ("images", "packed") for p in sorted((data / room).glob("*.py"))]
    sources += [data / "tables" / "masks.py", data / "formats" / "depth.py"]
    return hashlib.blake2b(b"\0".join([decoders().encode(), *(p.read_bytes() for p in sources)]), digest_size=8).hexdigest()

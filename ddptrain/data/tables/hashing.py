"""Numbers that stand for what rows of columns and files hold, made a column at a time."""

import os
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

HEAD = 8192
"""Bytes of a file that are looked at: of pictures of one size in bytes, other ones differ there."""

U64 = npt.NDArray[np.uint64]
_FACTOR, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)


def hash_rows(count: int, columns: Iterable[npt.NDArray[Any]]) -> U64:
    """A number of each row of the columns `[count, …]` together."""
    out = np.full(count, 1, np.uint64)
    for column in columns:
        flat = np.ascontiguousarray(column).reshape(count, int(np.prod(column.shape[1:]))).view(np.uint8)
        width = flat.shape[1]
        words = np.pad(flat, ((0, 0), (0, -width % 8))) if width % 8 else flat
        for word in words.view(np.uint64).T if count else ():
            out = fold(out, word)
    return out


def fold(number: U64, word: Any) -> U64:
    """The numbers with another word of 64 bits each mixed in."""
    mixed = (number ^ word) * _FACTOR
    mixed ^= mixed >> _SHIFT
    return mixed


def hash_names(names: Sequence[str], labels: npt.NDArray[np.int32]) -> U64:
    """Labels as numbers of their names, so that the order of the dataset's classes does not matter; -1 stays."""
    numbers = np.array([zlib.crc32(name.encode()) for name in names] + [1], np.uint64)
    return numbers[labels]


def sum_rows(rows: U64, offsets: npt.NDArray[np.int64]) -> U64:
    """Of each image the sum of its rows `offsets[i]` to `offsets[i + 1]`, whatever their order."""
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(rows, dtype=np.uint64)])
    return before[offsets[1:]] - before[offsets[:-1]]


def read_heads(paths: Sequence[bytes]) -> U64:
    """Of each file a number of its size and its first bytes; 0 for one that cannot be read."""
    chunks = [paths[i : i + 500] for i in range(0, len(paths), 500)]
    with ThreadPoolExecutor(16) as pool:  # on network storage the time goes into waiting
        return np.array([n for part in pool.map(lambda chunk: [_head(p) for p in chunk], chunks) for n in part], np.uint64)


def _head(path: bytes) -> int:
    try:
        with open(path, "rb", buffering=0) as file:
            return zlib.crc32(file.read(HEAD)) << 32 | os.fstat(file.fileno()).st_size & 0xFFFFFFFF
    except OSError:
        return 0

"""What a dataset held when it was read: a number for each image, so that a run that goes on notices what was replaced.

An image's number is made of the size and the first bytes of its file and of its labels as they were read. Times and folders
are not in it: a copy on another disk, or a fresh checkout, has the same contents.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

HEAD = 8192
"""Bytes of a file that are looked at: of pictures of one size in bytes, other ones differ there."""
SHOWN = 3
"""Images that a line about a difference names."""

_OF_IMAGES = ("sizes", "labelled", "pixels")
_OF_BOXES = ("boxes", "ignore", "crowd", "area", "tracks", "no_eval")
_FACTOR, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)


@dataclass(frozen=True)
class Files:
    """Files beside the images of a dataset, such as its depth maps; see `AnnotationTable` for the members."""

    name: str
    root: str
    path_bytes: npt.NDArray[np.uint8]
    path_offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.path_offsets) - 1


class Contents:
    """What one dataset held.

    Attributes:
        part: "train" or "val".
        name: the dataset's name in the config.
        kind: what is compared, for messages.
    """

    def __init__(self, part: str, table: Any, kind: str = "images") -> None:
        """`table`: of any task, as it was read, before its classes are mapped; or `Files` beside its images."""
        self.part, self.name, self.kind = part, str(table.name), kind
        self._table = table

    @cached_property
    def digests(self) -> npt.NDArray[np.int64]:
        """int64 `[N]`, see `digests`; made when they are asked for, which only rank 0 does."""
        known = getattr(self._table, "digests", None)
        return digests(self._table) if known is None else known

    @cached_property
    def names(self) -> list[bytes]:
        """Each image's path relative to the dataset's root."""
        if getattr(self._table, "pixels", None) is not None and self._table.pixels.dtype == np.uint8:
            return [str(i).encode() for i in range(len(self._table))]
        top = os.fsencode(os.path.join(self._table.root, ""))
        paths = _paths(self._table.path_bytes, self._table.path_offsets)
        return [p[len(top) :] if p.startswith(top) else os.path.relpath(p, top) for p in paths]

    def state(self) -> dict[str, Any]:
        """For a checkpoint: bytes and integers as arrays, and a checksum of all of it in this order."""
        joined = b"\0".join(self.names)
        packed = np.frombuffer(zlib.compress(joined, 1), np.uint8).copy()
        total = zlib.crc32(self.digests.tobytes(), zlib.crc32(joined))
        what = {"part": self.part, "name": self.name, "kind": self.kind}
        return {**what, "total": total, "names": packed, "digests": np.array(self.digests)}


def differences(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """A line for each dataset of both states whose contents differ, by part."""
    found: dict[str, list[str]] = {"train": [], "val": []}
    before = {_place(s): s for s in old}
    for state in new:
        part, name, kind = _place(state)
        known = before.get((part, name, kind))
        if known is not None and (known["total"], len(known["digests"])) != (state["total"], len(state["digests"])):
            found[part].append(f"{part} {name}: {_difference(_by_name(known), _by_name(state), kind)}")
    return found


def _place(state: Mapping[str, Any]) -> tuple[str, str, str]:
    return state["part"], state["name"], state.get("kind", "images")


def _by_name(state: Mapping[str, Any]) -> dict[bytes, int]:
    names = zlib.decompress(np.asarray(state["names"]).tobytes()).split(b"\0")
    return dict(zip(names, np.asarray(state["digests"]).tolist()))


def _difference(old: Mapping[bytes, int], new: Mapping[bytes, int], kind: str) -> str:
    found = {
        "changed": [n for n in new if n in old and old[n] != new[n]],
        "added": [n for n in new if n not in old],
        "removed": [n for n in old if n not in new],
    }
    told = [f"{len(names)} of {len(old)} {kind} {done} ({_shown(names)})" for done, names in found.items() if names]
    return ", ".join(told) or f"the same {len(new)} {kind} in another order"


def _shown(names: Sequence[bytes]) -> str:
    shown = [n.decode("utf-8", "backslashreplace") for n in names[:SHOWN]]
    return ", ".join(shown) + (", …" if len(names) > SHOWN else "")


def digests(table: Any) -> npt.NDArray[np.int64]:
    """int64 `[N]`: of each image of a table as it was read, what its file and its labels hold."""
    columns = vars(table)
    out = _number(len(table), [columns[c] for c in _OF_IMAGES if columns.get(c) is not None])
    if columns.get("pixels") is None or "mask_bytes" in columns:
        for kind in ("path", "mask"):
            if f"{kind}_bytes" in columns:
                out = _mixed(out, _heads(columns[f"{kind}_bytes"], columns[f"{kind}_offsets"]))
    if "classes" in columns:  # of a mask's values
        out = _mixed(out, np.uint64(zlib.crc32(columns["classes"].tobytes() + "\0".join(table.names).encode())))
    if "offsets" in columns:
        out += _sums(_rows(table, columns), columns["offsets"])
    if "pairs" in columns:
        first = np.searchsorted(columns["offsets"], columns["pairs"][:, 0], side="right") - 1
        place = columns["pairs"] - columns["offsets"][first][:, None]
        kinds = _number(len(columns["labels"]), [_named(table, columns["labels"]), columns["difficulty"]])
        each = _number(len(place), [place, _sums(kinds, columns["pair_offsets"])])
        np.add.at(out, first, each)
    return out.view(np.int64)


def _rows(table: Any, columns: Mapping[str, Any]) -> npt.NDArray[np.uint64]:
    """A number of each box, or of each label of a whole image."""
    own = [columns[c] for c in _OF_BOXES if c in columns]
    if "pairs" not in columns:
        own.append(_named(table, columns["labels"]))
    return _number(int(columns["offsets"][-1]), own)


def _named(table: Any, labels: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
    """Labels as numbers of their names, so that the order of the dataset's classes does not matter; -1 stays."""
    numbers = np.array([zlib.crc32(name.encode()) for name in table.names] + [1], np.uint64)
    return numbers[labels]


def _sums(rows: npt.NDArray[np.uint64], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Of each image the sum of its rows, whatever their order."""
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(rows, dtype=np.uint64)])
    return before[offsets[1:]] - before[offsets[:-1]]


def _number(count: int, columns: Iterable[npt.NDArray[Any]]) -> npt.NDArray[np.uint64]:
    """A number of each row of the columns `[count, …]` together."""
    out = np.full(count, 1, np.uint64)
    for column in columns:
        flat = np.ascontiguousarray(column).reshape(count, int(np.prod(column.shape[1:]))).view(np.uint8)
        width = flat.shape[1]
        words = np.pad(flat, ((0, 0), (0, -width % 8))) if width % 8 else flat
        for word in words.view(np.uint64).T if count else ():
            out = _mixed(out, word)
    return out


def _mixed(number: npt.NDArray[np.uint64], word: Any) -> npt.NDArray[np.uint64]:
    mixed = (number ^ word) * _FACTOR
    mixed ^= mixed >> _SHIFT
    return mixed


def _paths(buffer: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> list[bytes]:
    whole = buffer.tobytes()
    return [whole[start:stop] for start, stop in pairwise(offsets.tolist())]


def _heads(buffer: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Of each file a number of its size and its first bytes; 0 for one that cannot be read."""
    paths = _paths(buffer, offsets)
    chunks = [paths[i : i + 500] for i in range(0, len(paths), 500)]
    with ThreadPoolExecutor(16) as pool:  # on network storage the time goes into waiting
        return np.array([n for part in pool.map(lambda chunk: [_head(p) for p in chunk], chunks) for n in part], np.uint64)


def _head(path: bytes) -> int:
    try:
        with open(path, "rb", buffering=0) as file:
            return zlib.crc32(file.read(HEAD)) << 32 | os.fstat(file.fileno()).st_size & 0xFFFFFFFF
    except OSError:
        return 0

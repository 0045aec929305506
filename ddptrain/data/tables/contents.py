"""What a dataset held when it was read: a number for each image, so that a resumed run notices what was replaced.

An image's number is made of the size and the first bytes of its file and of its labels as they were read. Times and folders
are not in it: a copy on another disk, or a fresh checkout, has the same contents.
"""

import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ddptrain.data.tables.base import FileTable

SHOWN = 3
"""Images that a line about a difference names."""


class Contents:
    """What one dataset held.

    Attributes:
        part: "train" or "val".
        name: the dataset's name in the config.
        kind: what is compared, for messages.
    """

    def __init__(self, part: str, table: FileTable, kind: str = "images") -> None:
        """`table`: as it was read, before its classes are mapped; or files beside its images."""
        self.part, self.name, self.kind = part, table.name, kind
        self._table = table

    @cached_property
    def digests(self) -> npt.NDArray[np.int64]:
        """int64 `[N]`: a number of each image; made when they are asked for, which only rank 0 does."""
        known = self._table.digests
        return self._table.hash_contents().view(np.int64) if known is None else known

    @cached_property
    def names(self) -> list[bytes]:
        """Each image's path relative to the dataset's root."""
        return self._table.names_below_root()

    def state(self) -> dict[str, Any]:
        """For a checkpoint: bytes and integers as arrays, and a checksum of all of it in this order."""
        joined = b"\0".join(self.names)
        packed = np.frombuffer(zlib.compress(joined, 1), np.uint8).copy()
        total = zlib.crc32(self.digests.tobytes(), zlib.crc32(joined))
        what = {"part": self.part, "name": self.name, "kind": self.kind}
        return {**what, "total": total, "names": packed, "digests": np.array(self.digests)}


def differences(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """A line for each dataset of both states whose contents differ, by part."""
    lines: dict[str, list[str]] = {"train": [], "val": []}
    before = {_place(s): s for s in old}
    for state in new:
        part, name, kind = _place(state)
        known = before.get((part, name, kind))
        if known is not None and (known["total"], len(known["digests"])) != (state["total"], len(state["digests"])):
            lines[part].append(f"{part} {name}: {_difference(_by_name(known), _by_name(state), kind)}")
    return lines


def _place(state: Mapping[str, Any]) -> tuple[str, str, str]:
    return state["part"], state["name"], state.get("kind", "images")


def _by_name(state: Mapping[str, Any]) -> dict[bytes, int]:
    names = zlib.decompress(np.asarray(state["names"]).tobytes()).split(b"\0")
    return dict(zip(names, np.asarray(state["digests"]).tolist()))


def _difference(old: Mapping[bytes, int], new: Mapping[bytes, int], kind: str) -> str:
    names = {
        "changed": [n for n in new if n in old and old[n] != new[n]],
        "added": [n for n in new if n not in old],
        "removed": [n for n in old if n not in new],
    }
    parts = [f"{len(some)} of {len(old)} {kind} {how} ({_shown(some)})" for how, some in names.items() if some]
    return ", ".join(parts) or f"the same {len(new)} {kind} in another order"


def _shown(names: Sequence[bytes]) -> str:
    shown = [n.decode("utf-8", "backslashreplace") for n in names[:SHOWN]]
    return ", ".join(shown) + (", …" if len(names) > SHOWN else "")

"""What the tables of all tasks have in common: flat columns, no Python object per image or box.

Workers that are forked share these arrays; a list of a million small arrays would be copied page by page as its
reference counts change.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, ClassVar, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ddptrain.config.data import Exif
from ddptrain.data.tables.hashing import U64, fold, hash_names, hash_rows, read_heads, sum_rows

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
DROP, IGNORE = -1, -2
"""In place of a class of the run: its labels are left out, or nothing is right or wrong where they are."""
T = TypeVar("T", bound="Table")
R = TypeVar("R", bound="RowTable")


@dataclass(frozen=True, eq=False)
class Paths(Sequence[str]):
    """A column of paths, absolute or relative to the working directory.

    Attributes:
        text: uint8, all paths one after the other.
        offsets: int64 `[N + 1]`: path i is `text[offsets[i]:offsets[i + 1]]`.
    """

    text: npt.NDArray[np.uint8]
    offsets: I64

    @classmethod
    def pack(cls, paths: Iterable[str]) -> Paths:
        """The column of some paths."""
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), to_offsets([len(e) for e in encoded]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        return self.text[self.offsets[i] : self.offsets[i + 1]].tobytes().decode("utf-8", "surrogateescape")

    def encoded(self) -> list[bytes]:
        """All paths as they are stored."""
        text = self.text.tobytes()
        return [text[start:stop] for start, stop in pairwise(self.offsets.tolist())]

    def keep(self, keep: Mask) -> Paths:
        """The paths where `keep`, bool `[N]`."""
        lengths = np.diff(self.offsets)
        return Paths(self.text[np.repeat(keep, lengths)], to_offsets(lengths[keep]))


def to_offsets(counts: npt.ArrayLike) -> I64:
    """int64 `[N + 1]`: where the rows of each image begin and end, from how many each has, `[N]`."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


@dataclass(frozen=True, eq=False, kw_only=True)
class FileTable:
    """Files of one dataset. N files.

    Attributes:
        name: the dataset's name in the config.
        root: its folder.
        paths: the files.
        digests: int64 `[N]`: of each file and its labels, where the cache has them; see `Contents`.
    """

    of_images: ClassVar[tuple[str, ...]] = ()
    """Columns with an entry for each file."""

    name: str
    root: str
    paths: Paths
    digests: I64 | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, image: int) -> str:
        """Path of one file."""
        return self.paths[image]

    def names_below_root(self) -> list[bytes]:
        """Each file's path relative to the root."""
        top = os.fsencode(os.path.join(self.root, ""))
        return [p[len(top) :] if p.startswith(top) else os.path.relpath(p, top) for p in self.paths.encoded()]

    def hash_contents(self) -> U64:
        """uint64 `[N]`: a number of what each file and its labels hold, whatever the order of rows and classes."""
        columns = (getattr(self, name) for name in self.of_images)
        out = hash_rows(len(self), [c for c in columns if c is not None])
        for column in (getattr(self, f.name) for f in fields(self)):
            if isinstance(column, Paths) and len(column) == len(self):
                out = fold(out, read_heads(column.encoded()))
        return out


@dataclass(frozen=True, eq=False, kw_only=True)
class Table(FileTable, ABC):
    """The images of one dataset and their labels. N images.

    Attributes:
        names: class names. As read: the dataset's own; after `LabelSpace.apply`: the run's.
        sizes: int32 `[N, 2]`: width and height in pixels, as decoded.
        ignored_names: own classes whose labels the benchmark ignores unless the config says otherwise (VisDrone `others`).
        exif: how the images are read.
    """

    of_images: ClassVar[tuple[str, ...]] = ("sizes",)

    names: tuple[str, ...]
    sizes: I32
    ignored_names: tuple[str, ...] = ()
    exif: Exif = "apply"

    def __len__(self) -> int:
        return len(self.sizes)

    @abstractmethod
    def samples_by_class(self) -> I64:
        """int64 `[classes]`: how many samples are labelled with each class; a sample is an image, or a pair of people."""

    @abstractmethod
    def to_classes(self: T, classes: tuple[str, ...], mapping: I32) -> T:
        """The table with labels of the run, see `LabelSpace.apply`. `mapping`: int32 `[own classes]`, class of the run,
        `DROP` or `IGNORE`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RowTable(Table):
    """A table whose images have any number of rows, which lie together. M rows.

    Attributes:
        offsets: int64 `[N + 1]`: image i has the rows `offsets[i]` to `offsets[i + 1]`.
        labels: int32 `[M]`: index into `names`.
    """

    of_rows: ClassVar[tuple[str, ...]] = ("labels",)
    """Columns with an entry for each row; one that is None has none."""

    offsets: I64
    labels: I32

    def rows(self, image: int) -> slice:
        """The rows of one image."""
        if not 0 <= image < len(self):
            raise IndexError(f"image {image} of {len(self)}")
        return slice(int(self.offsets[image]), int(self.offsets[image + 1]))

    def image_of_rows(self) -> I64:
        """int64 `[M]`: the image that each row belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def keep_rows(self: R, keep: Mask) -> R:
        """The table with only the rows where `keep` (bool `[M]`); every image stays."""
        offsets = to_offsets(keep)[self.offsets]
        columns = {name: getattr(self, name) for name in self.of_rows}
        return replace(self, offsets=offsets, **{name: c[keep] for name, c in columns.items() if c is not None})

    def keep_images(self: R, keep: Mask) -> R:
        """The table with only the images where `keep` (bool `[N]`), and their rows."""
        counts = np.diff(self.offsets)
        columns = {k: getattr(self, k) for k in (*self.of_images, "digests")}
        kept: dict[str, Any] = {k: column[keep] for k, column in columns.items() if column is not None}
        if len(self.paths):
            kept["paths"] = self.paths.keep(keep)
        return replace(self.keep_rows(np.repeat(keep, counts)), offsets=to_offsets(counts[keep]), **kept)

    def hash_contents(self) -> U64:
        columns = [hash_names(self.names, self.labels) if k == "labels" else getattr(self, k) for k in self.of_rows]
        rows = hash_rows(int(self.offsets[-1]), [c for c in columns if c is not None])
        return super().hash_contents() + sum_rows(rows, self.offsets)

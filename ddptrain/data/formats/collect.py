"""The common half of every reader: grow columns, then find the faults in all rows at once and build the table."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ddptrain.config.data import DatasetConfig
from ddptrain.data.formats.files import Bounds
from ddptrain.data.images.headers import exif_hint, read_header, read_headers
from ddptrain.data.tables.base import F64, I64, Mask, Paths, to_offsets
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import KEPT_PER_KIND, Faults

Box = tuple[float, float, float, float]
MaskOf = Callable[[int, F64], npt.NDArray[np.uint8]]
IGNORE, CROWD = 1, 2
ROUNDING = 0.01  # px; less than this over the edge is only the rounding of a decimal number


def line_of(source: str, line: int) -> str:
    """`file:line`, the place of a row in a text file."""
    return f"{source}:{line}"


class ImageCollector:
    """Takes the images that a dataset names and finds those that are sound.

    Args:
        config: of the dataset.
        within: the folders that file names in annotations may lead into; none where the annotations name no files.
    """

    def __init__(self, config: DatasetConfig, faults: Faults, within: Iterable[str | Path] = ()) -> None:
        self.config, self.faults, self.exif = config, faults, config.exif
        self.bounds = Bounds(within)
        self.paths: list[str] = []
        self.named_by: list[str] = []
        self.claimed: list[tuple[int, int] | None] = []
        self._numbers: dict[str, int] = {}

    def add(self, path: str, named_by: str, size: tuple[int, int] | None = None) -> int:
        """Number of a new image that the file `named_by` (or a folder) names, with the (width, height) that annotations
        claim."""
        self._numbers[os.path.abspath(path)] = len(self.paths)
        self.paths.append(path)
        self.named_by.append(named_by)
        self.claimed.append(size)
        return len(self.paths) - 1

    def known(self, path: str) -> int | None:
        """The number of an image that was added before, however its path was spelled."""
        return self._numbers.get(os.path.abspath(path))

    def sizes(self, left_out: Container[int] = ()) -> I64:
        """int64 `[N, 2]`: (width, height) of all images as decoded; 0 for one that is left out, missing, unreadable or of
        another size than claimed, which `faults` counts."""
        # the name of what names it may end in a line number; its folder is right all the same
        self.faults.looked_in |= set(map(os.path.dirname, (*self.paths, *self.named_by)))
        sizes = np.zeros((len(self.paths), 2), np.int64)
        numbers = [i for i in range(len(self.paths)) if i not in left_out]
        for i, header in zip(numbers, read_headers([self.paths[i] for i in numbers], self.exif)):
            path, claimed = self.paths[i], self.claimed[i]
            if header == "missing":
                self.faults.add("missing image", self.named_by[i], path)
            elif isinstance(header, str):
                self.faults.add("unreadable image", path, header)
            elif claimed is not None and claimed != header.size:
                hint = exif_hint(header.orientation, self.exif) if claimed == header.size[::-1] else ""
                what = f"{claimed[0]}×{claimed[1]} where {path} has {header.size[0]}×{header.size[1]} pixels{hint}"
                self.faults.add("size mismatch", self.named_by[i], what)
            else:
                if header.orientation > 1 and self.exif == "apply":
                    self.faults.add("image turned by EXIF", path, f"orientation {header.orientation}")
                sizes[i] = header.size
        return sizes

    def columns(self, sizes: I64) -> dict[str, Any]:
        """The columns of a table of the sound images: those with a size."""
        sound = sizes[:, 0] > 0
        paths = Paths.pack(path for path, good in zip(self.paths, sound) if good)
        own = {"name": self.config.name, "root": self.config.root, "exif": self.exif}
        return {**own, "paths": paths, "sizes": sizes[sound].astype(np.int32)}


class Collector(ImageCollector):
    """Takes images and rows in any order of rows, and makes an `AnnotationTable` of them.

    Args:
        fractions: boxes are given in fractions of the image's width and height.
        place: turns a source file and the number that a row was given into `file:line`.
        config, within: see `ImageCollector`.
    """

    def __init__(
        self,
        config: DatasetConfig,
        faults: Faults,
        fractions: bool = False,
        place: Callable[[str, int], str] = line_of,
        within: Iterable[str | Path] = (),
    ) -> None:
        super().__init__(config, faults, within)
        self.fractions = fractions
        self.place = place
        self.sources: list[str] = []
        self._refused: set[int] = set()
        self._ints = array("q")  # image, source, line, label, flags of each row
        self._floats = array("d")  # x1, y1, x2, y2, area of each row

    def image(self, path: str, named_by: str, size: tuple[int, int] | None = None) -> int | None:
        """Number of a new image, see `add`; None (and a fault) where it was added before."""
        if self.known(path) is not None:
            self.faults.add("duplicate image", named_by, f"{path} is listed twice")
            return None
        if self.bounds.given and not self.bounds.hold(path, named_by, self.faults):
            self.leave_out(len(self.paths))
        return self.add(path, named_by, size)

    def leave_out(self, image: int) -> None:
        """Leave an image out of the table, for a fault that was counted."""
        self._refused.add(image)

    def source(self, path: str) -> int:
        """Number of an annotation file, for `row`."""
        self.sources.append(path)
        return len(self.sources) - 1

    def row(self, image: int, source: int, line: int, box: Box, label: int, flags: int = 0, area: float = math.nan) -> None:
        """Add a box (x1, y1, x2, y2) of an own class, or -1 for an ignore region without one. `flags`: `IGNORE`,
        `CROWD` or their sum; `area` in square pixels where the file gives it."""
        self._ints.extend((image, source, line, label, flags))
        self._floats.extend((*box, area))

    def rows(self, ints: I64, floats: F64) -> None:
        """Add many rows at once. `ints` `[M, 5]`: image, source, line, label, flags; `floats` `[M, 5]`: the box and its area
        (nan where the file gives none)."""
        self._ints.frombytes(np.ascontiguousarray(ints, np.int64).tobytes())
        self._floats.frombytes(np.ascontiguousarray(floats, np.float64).tobytes())

    def table(
        self, names: tuple[str, ...], ignored_names: tuple[str, ...] = (), masks: MaskOf | None = None
    ) -> AnnotationTable:
        """The table of all that was added, without what is faulty; each fault is counted in `faults`.

        Args:
            masks: gives the mask of a row by the number that it was given and its box; None where the format has none.
        """
        self.faults.looked_in |= set(map(os.path.dirname, self.sources))
        sizes = self.sizes(self._refused)
        sound = sizes[:, 0] > 0
        ints = np.frombuffer(self._ints, np.int64).reshape(-1, 5)
        floats = np.frombuffer(self._floats, np.float64).reshape(-1, 5)
        order = np.argsort(ints[:, 0], kind="stable")
        rows = _Rows(ints[order], floats[order, :4], floats[order, 4])
        self._drop(rows, "box of an image left out", ~sound[rows.image], "")
        if self.fractions:
            rows.boxes *= np.tile(sizes[rows.image], 2)
        self._check(rows, sizes)
        area = np.where(rows.area > 0, rows.area, np.prod(rows.boxes[:, 2:] - rows.boxes[:, :2], axis=1))
        return AnnotationTable(
            names=names,
            offsets=to_offsets(np.bincount(rows.image, minlength=len(sizes))[sound]),
            boxes=rows.boxes.astype(np.float32),
            labels=rows.ints[:, 3].astype(np.int32),
            ignore=(rows.ints[:, 4] & IGNORE) > 0,
            crowd=(rows.ints[:, 4] & CROWD) > 0,
            area=area.astype(np.float32),
            masks=None if masks is None else rows.masks(masks),
            ignored_names=ignored_names,
            **self.columns(sizes),
        )

    def _check(self, rows: _Rows, sizes: I64) -> None:
        """Find the faults of all rows; `rows` holds afterwards only sound ones, clipped to their images."""
        self._drop(rows, "non-finite number", ~_all(np.isfinite(rows.boxes)), "box ")
        if not self.fractions:
            self._drop(rows, "box in fractions", in_fractions(rows.boxes), "must be in pixels: ")
        width_height = rows.boxes[:, 2:] - rows.boxes[:, :2]
        self._drop(rows, "malformed row", ~_all(width_height >= 0), "x2 < x1 or y2 < y1: ")
        self._drop(rows, "zero-area box", ~_all(rows.boxes[:, 2:] > rows.boxes[:, :2]), "")
        limit = np.tile(sizes[rows.image], 2).astype(np.float64)
        over = np.maximum(-rows.boxes, rows.boxes - limit).max(1, initial=0.0)
        self._report(rows, "box outside image", over > 1, "", limit)
        self._report(rows, "box over the edge by 1 px or less", (over > ROUNDING) & (over <= 1), "", limit)
        np.clip(rows.boxes, 0, limit, out=rows.boxes)
        # as float32, the form in which they are kept, so that nothing collapses or becomes equal later
        rows.boxes = rows.boxes.astype(np.float32).astype(np.float64)
        empty = ~_all(rows.boxes[:, 2:] > rows.boxes[:, :2])
        self._report(rows, "zero-area box", empty & (over <= 1), "no part of it is inside the image: ")
        rows.keep(~empty)
        self._drop(rows, "duplicate row", _repeats(rows), "")

    def _report(self, rows: _Rows, kind: str, bad: Mask, what: str, limit: npt.NDArray[Any] | None = None) -> None:
        rows_at_fault = np.flatnonzero(bad)
        for i in rows_at_fault[:KEPT_PER_KIND]:
            box = " ".join(f"{v:.6g}" for v in rows.boxes[i])
            inside = "" if limit is None else f" in {limit[i, 0]:.0f}×{limit[i, 1]:.0f} pixels"
            place = self.place(self.sources[rows.ints[i, 1]], int(rows.ints[i, 2]))
            hint = "" if limit is None else self._exif_hint(int(rows.image[i]), rows.boxes[i], limit[i])
            self.faults.add(kind, place, f"{what}{box}{inside}{hint}")
        if len(rows_at_fault) > KEPT_PER_KIND:
            self.faults.counts[kind] += len(rows_at_fault) - KEPT_PER_KIND

    def _exif_hint(self, image: int, box: F64, limit: F64) -> str:
        """What to add where a box lies outside of an image and would not if width and height changed places."""
        if (box < -1).any() or (box > limit[[1, 0, 1, 0]] + 1).any():
            return ""
        header = read_header(self.paths[image], self.exif)
        return "" if isinstance(header, str) else exif_hint(header.orientation, self.exif)

    def _drop(self, rows: _Rows, kind: str, bad: Mask, what: str) -> None:
        if bad.any():
            self._report(rows, kind, bad, what)
            rows.keep(~bad)


class _Rows:
    """The columns while they are checked: ints `[M, 5]` as in `Collector`, boxes `[M, 4]`, area `[M]`."""

    def __init__(self, ints: I64, boxes: F64, area: F64) -> None:
        self.ints, self.boxes, self.area = ints, boxes, area

    @property
    def image(self) -> I64:
        return self.ints[:, 0]

    def masks(self, mask_of: MaskOf) -> npt.NDArray[np.uint8]:
        """uint8 `[M, 32]`."""
        each = [mask_of(number, box) for number, box in zip(self.ints[:, 2].tolist(), self.boxes)]
        return np.array(each, np.uint8).reshape(-1, 32)

    def keep(self, good: Mask) -> None:
        self.ints, self.boxes, self.area = self.ints[good], self.boxes[good], self.area[good]


def in_fractions(boxes: F64) -> Mask:
    """bool `[M]`: the box (x1, y1, x2, y2) must be one in fractions of an image's size, taken for one in pixels.

    It lies within the first pixel. One that begins in the very corner may be the rest of an object that was cut off, and
    one of whole numbers a pixel; so these are only suspected together with others.
    """
    tiny = _all((boxes[:, :2] > -0.5) & (boxes[:, :2] < 1) & (boxes[:, 2:] <= 1.01))
    sure = tiny & (boxes[:, :2] > 0).any(1) & (boxes % 1 > 0).any(1)
    return tiny if sure.any() or (len(tiny) > 2 and tiny.all()) else sure


def _all(rows: Mask) -> Mask:
    """bool `[M]`: every entry of the row is true."""
    return np.logical_and.reduce(rows, axis=1)


def _repeats(rows: _Rows) -> Mask:
    """bool `[M]`: an earlier row of the same image has the same box, class and flags."""
    order = np.lexsort((*rows.boxes.T, rows.ints[:, 4], rows.ints[:, 3], rows.image))
    ints, boxes = rows.ints[order], rows.boxes[order]
    same = _all(boxes[1:] == boxes[:-1]) & _all(ints[1:, [0, 3, 4]] == ints[:-1, [0, 3, 4]])
    repeats = np.zeros(len(order), bool)
    repeats[order[1:][same]] = True
    return repeats

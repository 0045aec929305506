"""Images in windows: how they are cut, and the tiles of a table, which are samples of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ddptrain.config.tiles import BoxWindows, TrainTiles, WindowsConfig
from ddptrain.data.augment.geometry import MIN_SIDE
from ddptrain.data.tables.base import F64, I32, I64, Mask, Table, to_offsets
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.errors import UserError
from ddptrain.seeding import rng
from ddptrain.system.printable import counted

_PAIRS = 2**20
"""Tiles and boxes that are held against each other at once."""


def window_starts(length: int, size: int, overlap: float) -> list[int]:
    """Where windows of `size` begin along a side, so that they cover it; the last one ends where the side ends."""
    if length <= size:
        return [0]
    step = max(1, round(size * (1 - overlap)))
    return [*range(0, length - size, step), length - size]


class Cutter(NamedTuple):
    """How images are cut.

    Attributes:
        sides: of the windows in pixels of the file, one for each scale.
        overlap: of neighbouring windows, as a fraction of their side.
        input_size: side of the network's input, at which each window is seen.
        keep: fraction of the area of an object that must be inside for it to be learned.
        size: side of the windows in pixels of the scaled image.
    """

    sides: tuple[int, ...]
    overlap: float
    input_size: int
    keep: float = 0.0
    size: int = 0

    @classmethod
    def of(cls, config: WindowsConfig, image_size: int) -> Cutter:
        """As the config says; `image_size`: of the run."""
        size, keep = config.size or image_size, config.keep if isinstance(config, BoxWindows) else 0.0
        return cls(tuple(round(size / scale) for scale in config.scales), config.overlap, image_size, keep, size)

    def windows(self, width: int, height: int) -> I32:
        """int32 `[k, 4]`: the windows of an image of this size, (x1, y1, x2, y2), no two equal."""
        found: dict[tuple[int, int, int, int], None] = {}
        for side in self.sides:
            w, h = min(side, width), min(side, height)
            for y in window_starts(height, h, self.overlap):
                found |= dict.fromkeys((x, y, x + w, y + h) for x in window_starts(width, w, self.overlap))
        return np.array(list(found), np.int32)

    def parts(self, boxes: np.ndarray, windows: np.ndarray) -> Parts:
        """What windows show of boxes.

        Args:
            boxes: float `[n, 4]` in pixels of the file.
            windows: int `[n, 4]`, or `[4]` for all.
        """
        boxes, windows = boxes.astype(np.float64), windows.astype(np.float64)
        corner, ends = windows[..., :2], windows[..., 2:]
        part = np.concatenate([np.maximum(boxes[:, :2], corner), np.minimum(boxes[:, 2:], ends)], 1)
        sides = (part[:, 2:] - part[:, :2]).clip(0)
        pixel = (ends - corner).max(-1) / self.input_size
        enough = sides.prod(1) >= self.keep * (boxes[:, 2:] - boxes[:, :2]).prod(1)
        inside = sides.min(1) > 0
        return Parts(part, inside, inside & enough & (sides.min(1) > MIN_SIDE * pixel))


class Parts(NamedTuple):
    """The parts of n boxes that windows show.

    Attributes:
        boxes: float64 `[n, 4]` in pixels of the file.
        inside: bool `[n]`: something is shown.
        learned: bool `[n]`: enough for an object, and along each side more than the pixels of the input (`MIN_SIDE`) below
            which samples drop an object: what is not learned is ignored, and no background.
    """

    boxes: F64
    inside: Mask
    learned: Mask


@dataclass(frozen=True, eq=False)
class Tiles:
    """The tiles of a table: T windows of its images, first those that show an object. A sample of the dataset is one of these,
    or one of the draws of tiles that show none; `tile` says of which.

    Attributes:
        cutter: how they are cut.
        image: int64 `[T]`: the image of each.
        windows: int32 `[T, 4]` in pixels of the file.
        shown: how many show an object.
        empty: draws of tiles that show none, in a pass.
        notes, warnings: what was found, and what is probably not meant, a line each.
    """

    cutter: Cutter
    image: I64
    windows: I32
    shown: int
    empty: int = 0
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()

    def __len__(self) -> int:
        """Samples of a pass."""
        return self.shown + self.empty

    def tile(self, index: int, position: int, seed: int) -> int:
        """The tile of a sample. In a pass each tile with an object comes once; the tiles without one are dealt out to the draws
        for them, so that none comes twice in a pass if there are enough, and each draw takes one of its own by the seed and the
        position."""
        number = index - self.shown
        if number < 0:
            return index
        others = len(self.image) - self.shown
        if others <= self.empty:
            return self.shown + number % others
        own = (others - number - 1) // self.empty + 1
        return index + self.empty * int(rng(seed, position, "empty tile").integers(own))

    def learned(self, table: AnnotationTable) -> tuple[I64, I64]:
        """int64 `[m]` and `[m]`: which tiles show which rows of their table as objects."""
        objects, none = table.learned(), np.zeros(0, np.int64)
        tiles, rows = [none], [none]
        for tile, row in _pairs(self.image, table.offsets):
            shown = objects[row] & self.cutter.parts(table.boxes[row], self.windows[tile]).learned
            tiles.append(tile[shown])
            rows.append(row[shown])
        return np.concatenate(tiles), np.concatenate(rows)


def cut_images(table: Table, config: WindowsConfig, image_size: int) -> Tiles:
    """All windows of the images of a table."""
    cutter = Cutter.of(config, image_size)
    sizes, which = np.unique(table.sizes, axis=0, return_inverse=True)
    of_size = [cutter.windows(*size) for size in sizes.tolist()]
    kinds = which.reshape(-1).tolist()
    image = np.repeat(np.arange(len(table)), [len(of_size[k]) for k in kinds])
    windows = np.concatenate([of_size[k] for k in kinds]) if kinds else np.zeros((0, 4), np.int32)
    counts = f"{counted(len(image), 'tile')} of {counted(len(table), 'image')}"
    return Tiles(cutter, image, windows, len(image), notes=[counts, *_small_images(table, config, cutter)])


def cut_boxes(table: AnnotationTable, config: TrainTiles, image_size: int) -> Tiles:
    """The tiles of a table of boxes, of which `config.empty` are drawn that show none.

    Raises:
        UserError: the table has objects, and no tile shows one.
    """
    tiles, own = cut_images(table, config, image_size), table.keep_rows(table.learned())
    shown, kept = (np.bincount(n, minlength=m) > 0 for n, m in zip(tiles.learned(own), (len(tiles.image), len(own.labels))))
    tiny = own.keep_rows(_too_small(own, tiles.cutter))
    if len(kept) and not kept.any():
        raise UserError(
            f"{table.name}: tiles: none of the {len(tiles.image)} tiles shows one of its {counted(len(kept), 'object')}; "
            f"{len(tiny.labels)} of them are at most {MIN_SIDE:g} pixels wide or high at every scale of {list(config.scales)}; "
            "raise tiles.scales, or lower tiles.keep"
        )
    warnings = list(_lost_objects(own, tiny, kept))
    order = np.argsort(~shown, kind="stable")
    full, others = int(shown.sum()), int((~shown).sum())
    empty = round(full * config.empty / (1 - config.empty)) if full else others
    counts = f"{tiles.notes[0]}, {full} with objects and {others} without"
    if full and others:
        part, passes = empty / (full + empty), empty / others
        counts += f", which are {100 * part:.3g} % of those drawn (each {passes:.3g} times a pass)"
    return Tiles(
        tiles.cutter,
        tiles.image[order],
        tiles.windows[order],
        full,
        empty if others else 0,
        [counts, *tiles.notes[1:]],
        warnings,
    )


def _pairs(image: I64, offsets: I64) -> Iterator[tuple[I64, I64]]:
    """Each tile with each row of its image, some at a time: int64 `[m]` and `[m]`; `image`: of each tile."""
    rows = np.diff(offsets)[image]
    ends = to_offsets(rows)
    start = 0
    while start < len(image):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + _PAIRS, side="right")) - 1)
        tile = np.repeat(np.arange(start, stop), rows[start:stop])
        yield tile, offsets[image[tile]] + np.arange(len(tile)) - (ends[tile] - ends[start])
        start = stop


def _too_small(table: AnnotationTable, cutter: Cutter) -> Mask:
    """bool `[M]`: the boxes with a side of at most `MIN_SIDE` pixels of the input in every window of their image."""
    sides = np.minimum(min(cutter.sides), table.sizes.max(1))
    pixel = (sides / cutter.input_size)[table.image_of_rows()]
    boxes = table.boxes.astype(np.float64)
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).min(1) <= MIN_SIDE * pixel)


def _small_images(table: Table, config: WindowsConfig, cutter: Cutter) -> Iterator[str]:
    """A line for each scale at which images are not larger than a window."""
    for scale, side in zip(config.scales, cutter.sides):
        small = int((table.sizes <= side).all(1).sum())
        if small:
            which = f"{small} of {counted(len(table), 'image')} {'is' if small == 1 else 'are'}"
            yield f"{which} not larger than a tile of {cutter.size} at scale {scale:g}: taken whole"


def _lost_objects(own: AnnotationTable, tiny: AnnotationTable, kept: Mask) -> Iterator[str]:
    """Lines about the objects that no tile keeps, which are ignore regions in all of them."""
    images = int(((np.diff(tiny.offsets) > 0) & (np.diff(tiny.offsets) == np.diff(own.offsets))).sum())
    if len(tiny.labels):
        alone = f", in {counted(images, 'image')} all there are," if images else ""
        small = (
            f"{counted(len(tiny.labels), 'object')}{alone} at most {MIN_SIDE:g} pixels wide or high at every scale of the tiles"
        )
        yield f"{small}: ignored, not learned; larger tiles.scales show more of them"
    cut = int((~kept).sum()) - len(tiny.labels)
    if cut:
        large = f"{counted(cut, 'object')} cut below tiles.keep in every tile"
        yield f"{large}: ignored, not learned; a smaller value in tiles.scales shows them whole"

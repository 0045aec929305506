"""One detection sample of one image or of several: pixels, depth, boxes, ignore regions, and what is known where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np

from ddptrain.config.detection_augment import DetectionAugment
from ddptrain.data.augment.effects import COVERED
from ddptrain.data.augment.geometry import BORDER, covered, left_of, letterbox, transform_boxes
from ddptrain.data.augment.mix import MIXUP_BETA, part_box, random_mosaic
from ddptrain.data.augment.view import ImageView
from ddptrain.data.augment.warp import warp_nearest
from ddptrain.data.images.pixels import Pixels
from ddptrain.data.samples.base import to_native
from ddptrain.data.tables.box_masks import masks_of_parts
from ddptrain.data.tables.windows import Cutter
from ddptrain.seeding import rng
from ddptrain.structures import Sample, SampleKey

Second = Literal["mixup", "cutmix"]
"""How a second layer is joined to the first."""


class Source(NamedTuple):
    """An image as it was read, with what is on it.

    Attributes:
        image: uint8 `[H, W, 3]`, RGB.
        boxes: float32 `[n, 4]` in pixels of the file.
        labels: int `[n]`.
        ignore_boxes: float32 `[k, 4]` in pixels of the file.
        annotated: bool `[classes]`: the classes that its dataset labels.
        depth: uint8 `[H, W]` in the size of the file, 0 where nothing is known; None where the model takes none.
        masks: uint8 `[n, 32]`: of the objects in their boxes, see `box_masks`; None where the dataset has none.
        pasted: how many of the objects, the last ones, copy-paste has added.
        window: of a part of an image, which then counts as a file of its own, its corner and the size of the whole file:
            (x, y, width, height).
    """

    image: Pixels
    boxes: np.ndarray
    labels: np.ndarray
    ignore_boxes: np.ndarray
    annotated: np.ndarray
    depth: np.ndarray | None = None
    masks: np.ndarray | None = None
    pasted: int = 0
    window: tuple[int, int, int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.size

    def cut(self, window: tuple[int, int, int, int], cutter: Cutter) -> Source:
        """The part of a whole image in a window, with the objects of which enough is inside. Of the others, and of ignore
        regions, what is inside is an ignore region."""
        x1, y1, x2, y2 = window
        corner = np.array([x1, y1, x1, y1], np.float32)
        own, ignored = (cutter.parts(boxes, np.array(window)) for boxes in (self.boxes, self.ignore_boxes))
        cut = np.concatenate([own.boxes[own.inside & ~own.learned], ignored.boxes[ignored.inside]])
        return Source(
            Pixels.of(self.image.values[y1:y2, x1:x2]),
            own.boxes[own.learned].astype(np.float32) - corner,
            self.labels[own.learned],
            cut.astype(np.float32) - corner,
            self.annotated,
            None if self.depth is None else self.depth[y1:y2, x1:x2],
            None if self.masks is None else masks_of_parts(self.masks, self.boxes, own.boxes)[own.learned],
            window=(x1, y1, *self.size),
        )


class _Tile(NamedTuple):
    """A source on the square.

    Attributes:
        matrix: float64 `[3, 3]` from its pixels to those of the square.
        shown: int64 `[4]`: the part of the square that shows it; None for all.
        hidden: int64 `[4]`: a part of the square that another image hides, or None.
    """

    source: Source
    matrix: np.ndarray
    shown: np.ndarray | None = None
    hidden: np.ndarray | None = None


class _Layer(NamedTuple):
    """One image, or several in a mosaic, on the square: uint8 `[S, S, 3]`, and the depth `[S, S]` where the model takes it."""

    image: np.ndarray
    depth: np.ndarray | None
    tiles: list[_Tile]


def compose(
    key: SampleKey,
    layers: Sequence[Sequence[Source]],
    size: int,
    augment: DetectionAugment | None = None,
    seed: int = 0,
    channels: int = 3,
    second: Second = "mixup",
) -> Sample:
    """Letterbox, or mosaic, then what `ImageView` draws, in one warp for each image; then mixup or cutmix where there are two
    layers; then the cutout. All that is drawn is a function of (seed, position).

    In training, boxes of which too little is left are left out. Of those that are mostly hidden, by a cutout or by the part of
    another image, the rest becomes an ignore region (`COVERED`). A part of an ignore region that stays visible is kept, however
    small.

    Args:
        key: of the first image.
        layers: one, or two; each of one image, or of a mosaic's. Blended by mixup, the boxes of both stay.
        size: side of the network's input in pixels.
        augment: None for evaluation: the centred letterbox; every box stays.
        seed: the run's seed.
        channels: of the result: 3, or with depth 4 or 5.
        second: how the second layer is joined.
    """
    views = [ImageView.draw(size, augment, seed, key.position, "/2" * number) for number in range(len(layers))]
    painted = []
    for number, (view, sources) in enumerate(zip(views, layers)):
        if len(sources) == 1:
            places = [letterbox(sources[0].size, size)]
        else:
            places = random_mosaic([s.size for s in sources], size, rng(seed, key.position, f"mosaic{'/2' * number}"))
        painted.append(_paint(sources, places, view))
    whole, *others = painted
    for other in others:
        generator = rng(seed, key.position, second)
        whole = _blend(whole, other, generator) if second == "mixup" else _cut_in(whole, other, generator)
    image, depth, tiles = whole
    view = views[0]
    annotated, unknown = _known(tiles, size)
    source, back = tiles[0].source, to_native(tiles[0].matrix)
    if source.window is not None:
        back[:, 2] += source.window[:2]
    found, pasted = _boxes(tiles, size, view.cut, learned=augment is not None)
    return Sample(
        key=key,
        image=_with_depth(view.covered(image, BORDER), None if depth is None else view.covered(depth, 0), channels),
        targets=found | unknown,
        annotated=annotated,
        to_native=back,
        native_size=source.size if source.window is None else source.window[2:],
        pasted=pasted,
    )


def _paint(sources: Sequence[Source], places: Sequence[np.ndarray], view: ImageView) -> _Layer:
    square = np.full((view.size, view.size, 3), BORDER, np.uint8)
    tiles = []
    for source, place in zip(sources, places):
        patch = view.patch(source.image, place)
        patch.onto(square, None if len(sources) == 1 else source.size)
        tiles.append(_Tile(source, patch.matrix))
    maps = [warp_nearest(tile.source.depth, tile.matrix, view.size) for tile in tiles if tile.source.depth is not None]
    # tiles do not overlap, and around each its map is 0
    return _Layer(view.effects.on(square), np.maximum.reduce(maps) if maps else None, tiles)


def _blend(first: _Layer, second: _Layer, generator: np.random.Generator) -> _Layer:
    """Mixup; depth is known where both know it."""
    weight, depth = generator.beta(MIXUP_BETA, MIXUP_BETA), first.depth
    if depth is not None and second.depth is not None:
        known = (depth > 0) & (second.depth > 0)
        depth = cv2.addWeighted(depth, weight, second.depth, 1 - weight, 0) * known
    return _Layer(cv2.addWeighted(first.image, weight, second.image, 1 - weight, 0), depth, first.tiles + second.tiles)


def _cut_in(first: _Layer, second: _Layer, generator: np.random.Generator) -> _Layer:
    """Cutmix: a rectangle of the second layer in the place of what the first one shows there."""
    size = len(first.image)
    box = part_box(generator.random(), generator.random(2) * size, size)
    left, top, right, bottom = box.tolist()
    first.image[top:bottom, left:right] = second.image[top:bottom, left:right]
    if first.depth is not None and second.depth is not None:
        first.depth[top:bottom, left:right] = second.depth[top:bottom, left:right]
    tiles = [tile._replace(hidden=box) for tile in first.tiles] + [tile._replace(shown=box) for tile in second.tiles]
    return first._replace(tiles=tiles)


def _with_depth(image: np.ndarray, depth: np.ndarray | None, channels: int) -> np.ndarray:
    if depth is None:
        return image
    known = np.where(depth > 0, 255, 0).astype(np.uint8)
    return np.dstack([image, depth, known][: channels - 2])


def _boxes(tiles: Sequence[_Tile], size: int, cut: np.ndarray | None, learned: bool) -> tuple[dict[str, np.ndarray], int]:
    """Targets, and how many of the objects are pasted ones."""
    boxes, labels, ignored, pasted = [], [], [], 0
    for source, matrix, shown, hidden in tiles:
        moved, kept = transform_boxes(np.concatenate([source.boxes, source.ignore_boxes]), matrix, size, shown)
        moved, regions = np.split(moved, [len(source.boxes)])
        kept = kept[: len(source.boxes)]
        parts = [part for part in (hidden, cut) if part is not None]
        mostly = kept & (_covered(moved, parts) > COVERED)
        rest = moved[mostly]
        for part in parts:
            rest = left_of(rest, part)
        ignored.append(rest[(rest[:, 2:] > rest[:, :2]).all(1)])
        kept = kept & ~mostly
        if hidden is not None:  # there another image is seen, with objects of its own
            regions = left_of(regions, hidden)
        visible = (regions[:, 2] > regions[:, 0]) & (regions[:, 3] > regions[:, 1])
        boxes.append(moved[kept] if learned else moved)
        labels.append(source.labels[kept] if learned else source.labels)
        ignored.append(regions[visible] if learned else regions)
        pasted += int(kept[len(kept) - source.pasted :].sum())
    return {
        "boxes": np.concatenate(boxes),
        "labels": np.concatenate(labels).astype(np.int64),
        "ignore_boxes": np.concatenate(ignored),
    }, pasted


def _covered(boxes: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Float `[n]`, 0..1: how much of the area of each box `[n, 4]` lies in at least one of up to two rectangles `[4]`."""
    area = sum((covered(boxes, part) for part in parts), start=np.zeros(len(boxes)))
    if len(parts) == 2:
        first, second = parts
        area -= covered(boxes, np.concatenate([np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])]))
    return area


def _known(tiles: Sequence[_Tile], size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """`Sample.annotated`: the classes that at least one of the sources labels; and the tiles of those that label fewer."""
    rows = np.stack([tile.source.annotated for tile in tiles])
    some = np.asarray(rows.any(0))
    places: list[np.ndarray] = []
    windows: list[np.ndarray] = []
    known: list[np.ndarray] = []
    for tile, row in zip(tiles, rows):
        if (row != some).any():
            to_unit = np.diag([*(1 / np.array(tile.source.size)), 1]) @ np.linalg.inv(tile.matrix)
            parts = _visible(tile, size)
            windows += parts
            places += [to_unit] * len(parts)
            known += [row] * len(parts)
    return some, {
        "tiles": np.array(places, np.float32).reshape(-1, 3, 3),
        "tile_windows": np.array(windows, np.float32).reshape(-1, 4),
        "tile_annotated": np.array(known, bool).reshape(-1, len(some)),
    }


def _visible(tile: _Tile, size: int) -> list[np.ndarray]:
    """The parts of the square, int `[4]`, in which a tile may be seen."""
    if tile.hidden is None:
        return [np.array([0, 0, size, size]) if tile.shown is None else tile.shown]
    left, top, right, bottom = tile.hidden.tolist()
    around = np.array([[0, 0, size, top], [0, bottom, size, size], [0, top, left, bottom], [right, top, size, bottom]])
    return [part for part in around if part[2] > part[0] and part[3] > part[1]]

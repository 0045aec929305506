"""Detection samples: from a key of the stream to pixels and boxes, and from samples to a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from ddptrain.config.detection import DetectionAugment
from ddptrain.data.augment.geometry import BORDER, letterbox, transform_boxes
from ddptrain.data.augment.mix import MIXUP_BETA, random_mosaic
from ddptrain.data.augment.partners import Partners
from ddptrain.data.augment.view import ImageView
from ddptrain.data.augment.warp import warp_nearest
from ddptrain.data.formats.depth import DepthMaps
from ddptrain.data.images.pixels import Pixels
from ddptrain.data.packed.plan import Plan
from ddptrain.data.samples.base import ImageSamples, join_faults, plan_levels, to_native
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.seeding import rng
from ddptrain.structures import STRIDE, Sample, SampleKey

DEPTH_MAPS = "depth maps"
"""`Plan.kind` of the depth of images."""


class Source(NamedTuple):
    """An image as it was read, with what is on it.

    Attributes:
        image: uint8 `[H, W, 3]`, RGB.
        boxes: float32 `[n, 4]` in pixels of the file.
        labels: int `[n]`.
        ignore_boxes: float32 `[k, 4]` in pixels of the file.
        annotated: bool `[classes]`: the classes that its dataset labels.
        depth: uint8 `[H, W]` in the size of the file, 0 where nothing is known; None where the model takes none.
    """

    image: Pixels
    boxes: np.ndarray
    labels: np.ndarray
    ignore_boxes: np.ndarray
    annotated: np.ndarray
    depth: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.size


@dataclass(eq=False)
class DetectionSamples(ImageSamples[AnnotationTable]):
    """Detection samples of a mixture, see `ImageSamples`; their targets are described in `Sample`.

    Args:
        partners: where mosaic and mixup take their images from; None for neither.
        depth: the depth maps of each dataset, None for none.
        channels: of the samples: 3, with depth 4, with its validity 5.
        rectangular: cut the border that the letterbox adds off the samples, see `rectangles`.
    """

    augment: DetectionAugment | None
    partners: Partners | None = None
    depth: Sequence[DepthMaps | None] = ()
    channels: int = 3
    rectangular: bool = False

    def load(self, key: SampleKey, grey: bool = False) -> Source:
        """The image, its rows of the table, and its depth, of which nothing is known with `grey`."""
        table, image, depth = self.tables[key.dataset], self.pixels(key, grey), None
        if self.channels > 3:
            depth = np.zeros(image.size[::-1], np.uint8) if grey else self.depth_of(key.dataset, key.index, image.size)
        rows = table.rows(key.index)
        out = table.ignore[rows] | table.crowd[rows]
        boxes, labels = table.boxes[rows], table.labels[rows]
        return Source(image, boxes[~out], labels[~out], boxes[out], self.annotated[key.dataset], depth)

    def depth_of(self, dataset: int, image: int, size: tuple[int, int]) -> np.ndarray:
        """The depth of an image of this size, see `Source`; of which nothing is known where it has no map."""
        packed = self.packed(DEPTH_MAPS, dataset, image)
        maps = self.depth[dataset] if self.depth else None
        if packed is not None or maps is None or not maps.path(image):
            return np.zeros(size[::-1], np.uint8) if packed is None else packed
        return maps.read(maps.path(image), size)

    def takes_pixels(self) -> bool:
        return True

    def plans(self) -> Iterator[Plan]:
        """Also the depth maps, in the size of their images."""
        yield from super().plans()
        for dataset, (table, maps) in enumerate(zip(self.tables, self.depth)):
            if maps is not None and self.channels > 3:
                read = partial(_read_depth, maps, table)
                yield plan_levels(DEPTH_MAPS, dataset, maps.paths, table.sizes, maps.there(), read, maps.about())

    def make(self, key: SampleKey, source: Source) -> Sample:
        """The sample of a key, with the partners that mosaic and mixup put beside its image."""
        others: list[SampleKey] = []
        width = 1
        if self.partners is not None and self.augment is not None:
            others, width = self.partners.draw_tiles(key, self.seed, self.augment.mosaic, self.augment.mixup)
        loaded = [self.load_readable(other) for other in others]
        sources = [source, *(other.source for other in loaded)]
        layers = [sources[i : i + width] for i in range(0, len(sources), width)]
        sample = compose(key, layers, self.image_size, self.augment, self.seed, self.channels)
        sample.replaced = join_faults([other.fault for other in loaded])
        sample.weight = self.weight(key, *(other.key for other in loaded))
        return cut_border(sample) if self.rectangular else sample

    def shapes(self) -> list[np.ndarray]:
        """int64 `[n, 2]` for each dataset: width and height of each sample, if they are rectangular."""
        return [rectangles(t.sizes, self.image_size) for t in self.tables]

    @staticmethod
    def join(targets: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The targets of a batch, see `Batch`: rows one after the other, and the image of each."""

        def owners(name: str) -> np.ndarray:
            return np.repeat(np.arange(len(targets)), [len(t[name]) for t in targets])

        rows = {name: np.concatenate([t[name] for t in targets]) for name in targets[0]}
        return rows | {"image": owners("boxes"), "ignore_image": owners("ignore_boxes"), "tile_image": owners("tiles")}


def _read_depth(maps: DepthMaps, table: AnnotationTable, image: int) -> np.ndarray:
    width, height = table.sizes[image].tolist()
    return maps.read(maps.path(image), (width, height))


def rectangles(sizes: np.ndarray, side: int) -> np.ndarray:
    """int64 `[n, 2]`: width and height, multiples of 32 pixels, that images of some sizes `[n, 2]` need of the square of the
    letterbox."""
    scaled = sizes * (side / sizes.max(1, keepdims=True))
    return np.minimum(np.ceil(scaled / STRIDE - 1e-9).astype(np.int64) * STRIDE, side)


def cut_border(sample: Sample) -> Sample:
    """A letterboxed sample without the border beyond its rectangle, which lies in the middle of the square."""
    side = sample.image.shape[0]
    ((width, height),) = rectangles(np.array([sample.native_size]), side).tolist()
    x, y = (side - width) // 2, (side - height) // 2
    to_file = sample.to_native.copy()
    to_file[:, 2] += to_file[:, :2] @ np.array([x, y], np.float32)
    moved = {name: sample.targets[name] - np.array([x, y, x, y], np.float32) for name in ("boxes", "ignore_boxes")}
    image = np.ascontiguousarray(sample.image[y : y + height, x : x + width])
    return replace(sample, image=image, targets=sample.targets | moved, to_native=to_file)


class _Tile(NamedTuple):
    """A source, and float64 `[3, 3]` from its pixels to those of the sample."""

    source: Source
    matrix: np.ndarray


def compose(
    key: SampleKey,
    layers: Sequence[Sequence[Source]],
    size: int,
    augment: DetectionAugment | None = None,
    seed: int = 0,
    channels: int = 3,
) -> Sample:
    """Letterbox, or mosaic of four, then random affine and flips, in one warp for each image; then the colour gains; then
    mixup where there are two layers. All that is drawn is a function of (seed, position).

    In training, boxes of which too little is left are left out; a part of an ignore region that stays visible is kept,
    however small.

    Args:
        key: of the first image.
        layers: one, or two that are blended (the boxes of both stay); each of one image, or of four that meet in a point.
        size: side of the network's input in pixels.
        augment: None for evaluation: the centred letterbox; every box stays.
        seed: the run's seed.
        channels: of the result: 3, or with depth 4 or 5.
    """
    tiles: list[_Tile] = []
    shown: list[tuple[np.ndarray, np.ndarray | None]] = []
    for number, sources in enumerate(layers):
        layer = "/2" * number
        view = ImageView.draw(size, augment, seed, key.position, layer)
        if len(sources) == 1:
            places = [letterbox(sources[0].size, size)]
        else:
            places = random_mosaic([s.size for s in sources], size, rng(seed, key.position, f"mosaic{layer}"))
        image, depth, placed = _paint(sources, places, view)
        shown.append((image, depth))
        tiles += placed
    image, depth = shown[0]
    if len(shown) > 1:
        weight = rng(seed, key.position, "mixup").beta(MIXUP_BETA, MIXUP_BETA)
        image, depth = _blend(shown[0], shown[1], weight)
    annotated, unknown = _known(tiles)
    return Sample(
        key=key,
        image=_with_depth(image, depth, channels),
        targets=_boxes(tiles, size, learned=augment is not None) | unknown,
        annotated=annotated,
        to_native=to_native(tiles[0].matrix),
        native_size=tiles[0].source.size,
    )


def _paint(
    sources: Sequence[Source], places: Sequence[np.ndarray], view: ImageView
) -> tuple[np.ndarray, np.ndarray | None, list[_Tile]]:
    """The images of one layer on one square, their depth, and where each of them lies."""
    square = np.full((view.size, view.size, 3), BORDER, np.uint8)
    tiles = []
    for source, place in zip(sources, places):
        patch = view.patch(source.image, place)
        patch.onto(square, None if len(sources) == 1 else source.size)
        tiles.append(_Tile(source, patch.matrix))
    maps = [warp_nearest(s.depth, matrix, view.size) for s, matrix in tiles if s.depth is not None]
    # tiles do not overlap, and around each its map is 0
    return square, np.maximum.reduce(maps) if maps else None, tiles


def _blend(
    first: tuple[np.ndarray, np.ndarray | None], second: tuple[np.ndarray, np.ndarray | None], weight: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """Image and depth of two layers in one; depth is known where both know it."""
    (image, depth), (other, other_depth) = first, second
    if depth is not None and other_depth is not None:
        known = (depth > 0) & (other_depth > 0)
        depth = cv2.addWeighted(depth, weight, other_depth, 1 - weight, 0) * known
    return cv2.addWeighted(image, weight, other, 1 - weight, 0), depth


def _with_depth(image: np.ndarray, depth: np.ndarray | None, channels: int) -> np.ndarray:
    if depth is None:
        return image
    known = np.where(depth > 0, 255, 0).astype(np.uint8)
    return np.dstack([image, depth, known][: channels - 2])


def _boxes(tiles: Sequence[_Tile], size: int, learned: bool) -> dict[str, np.ndarray]:
    boxes, labels, ignored = [], [], []
    for source, matrix in tiles:
        moved, kept = transform_boxes(np.concatenate([source.boxes, source.ignore_boxes]), matrix, size)
        moved, regions = np.split(moved, [len(source.boxes)])
        kept = kept[: len(source.boxes)]
        visible = (regions[:, 2] > regions[:, 0]) & (regions[:, 3] > regions[:, 1])
        boxes.append(moved[kept] if learned else moved)
        labels.append(source.labels[kept] if learned else source.labels)
        ignored.append(regions[visible] if learned else regions)
    return {
        "boxes": np.concatenate(boxes),
        "labels": np.concatenate(labels).astype(np.int64),
        "ignore_boxes": np.concatenate(ignored),
    }


def _known(tiles: Sequence[_Tile]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """`Sample.annotated`: the classes that at least one of the sources labels; and the tiles of those that label fewer."""
    rows = np.stack([tile.source.annotated for tile in tiles])
    some = np.asarray(rows.any(0))
    fewer = np.flatnonzero((rows != some).any(1)).tolist()
    to_unit = [np.diag([*(1 / np.array(s.size)), 1]) @ np.linalg.inv(m) for s, m in (tiles[i] for i in fewer)]
    return some, {"tiles": np.array([t[:2] for t in to_unit], np.float32).reshape(-1, 2, 3), "tile_annotated": rows[fewer]}

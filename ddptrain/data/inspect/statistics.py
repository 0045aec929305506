"""What a table holds: boxes by class and by size, in pixels of the file and of the network's input; classes that it never
shows though it should, going by other sets."""

from typing import NamedTuple

import numpy as np

from ddptrain.data.tables.base import F64, I64
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.windows import Tiles
from ddptrain.structures import COCO_AREAS

EXPECTED = 2.0
"""Samples with classes that a set never shows, by the rate of the others, from which on that is strange."""
DEVIATIONS = 2.0
"""By how many standard deviations they must be above what chance alone leaves out of a small part of the same images."""
FOLDERS = 3
"""Folders, and classes of each, that a line names."""
EDGES = 2.0 ** (np.arange(21) / 2)
"""Edges of the histogram of box sides, in pixels: half octaves from 1 to 1024; the outer bins are open."""


class Sizes(NamedTuple):
    """Sizes of the boxes that are learned (neither ignore regions nor crowds).

    Attributes:
        native: int64 `[3]`: small, medium and large boxes by COCO's areas in pixels of the file.
        network: int64 `[3]`: the same in pixels of the letterboxed input, before augmentation; a box counts for each tile.
        sides: int64 `[len(EDGES) + 1]`: histogram of the square root of the area in the input.
        below_8: boxes of which that root is below 8 pixels.
        longest: longest side of a box in the input, in pixels; 0 without boxes.
    """

    native: I64
    network: I64
    sides: I64
    below_8: int
    longest: float


def class_counts(table: AnnotationTable) -> I64:
    """int64 `[classes]`: learned boxes of each class in `table.names`."""
    return np.bincount(table.labels[table.learned()], minlength=len(table.names))


def sides_in_network(table: AnnotationTable, image_size: int, tiles: Tiles | None = None) -> F64:
    """float64 `[n, 2]`: width and height of the learned boxes in pixels of the input: the image, or each tile that shows a box,
    letterboxed to a square of `image_size` pixels."""
    if tiles is None:
        rows = np.flatnonzero(table.learned())
        sides = table.sizes.astype(np.float64)[table.image_of_rows()[rows]]
        frames = np.concatenate([np.zeros_like(sides), sides], 1)
    else:
        shown, rows = tiles.learned(table)
        frames = tiles.windows[shown].astype(np.float64)
    boxes = table.boxes[rows].astype(np.float64)
    sides = np.minimum(boxes[:, 2:], frames[:, 2:]) - np.maximum(boxes[:, :2], frames[:, :2])
    return sides * (image_size / (frames[:, 2:] - frames[:, :2]).max(1, keepdims=True))


def box_sizes(table: AnnotationTable, image_size: int, tiles: Tiles | None = None) -> Sizes:
    """Sizes of a table's boxes, letterboxed to a square of `image_size` pixels, see `sides_in_network`."""
    boxes = table.boxes[table.learned()].astype(np.float64)
    sides = sides_in_network(table, image_size, tiles)
    in_network = np.sqrt(sides.prod(1))
    return Sizes(
        native=_by_size((boxes[:, 2:] - boxes[:, :2]).prod(1)),
        network=_by_size(in_network**2),
        sides=np.bincount(np.digitize(in_network, EDGES), minlength=len(EDGES) + 1),
        below_8=int((in_network < 8).sum()),
        longest=float(sides.max()) if len(sides) else 0.0,
    )


def _by_size(area: F64) -> I64:
    return np.bincount(np.digitize(area, COCO_AREAS), minlength=3)


def strangely_missed(samples: int, shown: np.ndarray, elsewhere: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The classes that a set never shows, those first that it should show most often; none where that may be chance: of many
    rare classes, a small set always lacks some.

    Args:
        samples: how many the set has.
        shown: int `[C]`: how many of them show each class.
        elsewhere, of: int `[C]`: how many samples of others show each class, and of how many.
    """
    expected = samples * elsewhere / np.maximum(of, 1)
    chance = np.exp(-expected)
    usual = (expected * chance).sum() + DEVIATIONS * np.sqrt((expected**2 * chance * (1 - chance)).sum())
    missed = np.flatnonzero((shown == 0) & (expected > 0))
    if expected[missed].sum() < max(EXPECTED, usual):
        return missed[:0]
    return missed[np.argsort(-expected[missed], kind="stable")]

"""What a table holds: boxes by class and by size, in pixels of the file and of the network's input."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.structures import COCO_AREAS

EDGES = 2.0 ** (np.arange(21) / 2)
"""Edges of the histogram of box sides, in pixels: half octaves from 1 to 1024; the outer bins are open."""


class Sizes(NamedTuple):
    """Sizes of the boxes that are learned (neither ignore regions nor crowds).

    Attributes:
        native: int64 `[3]`: small, medium and large boxes by COCO's areas in pixels of the file.
        network: int64 `[3]`: the same in pixels of the letterboxed input, before augmentation.
        sides: int64 `[len(EDGES) + 1]`: histogram of the square root of the area in the input.
        below_8: boxes of which that root is below 8 pixels.
        longest: longest side of a box in the input, in pixels; 0 without boxes.
    """

    native: npt.NDArray[np.int64]
    network: npt.NDArray[np.int64]
    sides: npt.NDArray[np.int64]
    below_8: int
    longest: float


def class_counts(table: AnnotationTable) -> npt.NDArray[np.int64]:
    """int64 `[classes]`: learned boxes of each class in `table.names`."""
    return np.bincount(table.labels[table.learned()], minlength=len(table.names))


def box_sizes(table: AnnotationTable, image_size: int) -> Sizes:
    """Sizes of a table's boxes, letterboxed to a square of `image_size` pixels."""
    kept = table.learned()
    boxes = table.boxes[kept].astype(np.float64)
    scale = image_size / table.sizes.max(1).astype(np.float64)[table.image_of_rows()[kept]]
    sides = boxes[:, 2:] - boxes[:, :2]
    area = sides.prod(1)
    in_network = np.sqrt(area) * scale
    return Sizes(
        native=_by_size(area),
        network=_by_size(in_network**2),
        sides=np.bincount(np.digitize(in_network, EDGES), minlength=len(EDGES) + 1),
        below_8=int((in_network < 8).sum()),
        longest=float((sides.max(1) * scale).max()) if len(boxes) else 0.0,
    )


def _by_size(area: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.bincount(np.digitize(area, COCO_AREAS), minlength=3)

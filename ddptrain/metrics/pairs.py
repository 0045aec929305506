"""Pairs of detections and boxes that overlap, for all images and classes at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
AT_ONCE = 2**20
"""Pairs that are looked at together, which bounds the memory."""
TABLE = 2**25
"""Groups whose beginnings are put into a table; more are searched for, which takes longer and no memory."""


class Pairs(NamedTuple):
    """Detections and boxes that overlap enough. P pairs: by detection, the greatest overlap first, of equal ones the box that
    comes later.

    Attributes:
        detection, box: int64 `[P]`: rows.
        overlap: float64 `[P]`: intersection over union; over the detection's own area for crowds and ignore regions.
    """

    detection: I64
    box: I64
    overlap: F64

    def where(self, kept: NDArray[np.bool_]) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.detection[kept], self.box[kept], self.overlap[kept])


def find_pairs(found: DetectionArrays, truth: GroundTruth, least: float) -> Pairs:
    """All pairs of one image and class with an overlap of at least `least`, above 0. An ignore region is of every class."""
    image, classes = truth.image_of_boxes(), len(truth.annotated)
    objects, regions = np.flatnonzero(~truth.ignore), np.flatnonzero(truth.ignore)
    group = image[objects] * classes + truth.labels[objects]
    order = np.argsort(group, kind="stable")
    boxes, others, crowd = _columns(found.boxes), _columns(truth.boxes), truth.ignore | truth.crowd
    none = np.zeros(0, np.int64)
    parts = [Pairs(none, none, np.zeros(0))]
    for rows, groups, wanted, count in (
        (objects[order], group[order], found.image * classes + found.labels, truth.images * classes),
        (regions, image[regions], found.image, truth.images),
    ):
        for detection, box in _of_one_group(rows, groups, wanted, count):
            parts.append(_overlapping(boxes, others, crowd, detection, box, least))
    detection, box = (np.concatenate([part[i] for part in parts]) for i in range(2))
    overlap = np.concatenate([part.overlap for part in parts])
    order = np.lexsort((-box, -overlap, detection))
    return Pairs(detection[order], box[order], overlap[order])


def _of_one_group(rows: I64, groups: I64, wanted: NDArray[np.integer], count: int) -> Iterator[tuple[I64, I64]]:
    """Each detection with each of `rows` whose group (`groups`, rising) is the one that it wants; a million at a time."""
    first, last = _ranges(groups, wanted, count)
    counts = last - first
    some = np.flatnonzero(counts)
    ends = np.append(0, np.cumsum(counts[some]))
    start = 0
    while start < len(some):
        stop = max(int(np.searchsorted(ends, ends[start] + AT_ONCE, "right")) - 1, start + 1)
        here, repeats = some[start:stop], counts[some[start:stop]]
        number = np.arange(ends[stop] - ends[start]) + np.repeat(first[here] - (ends[start:stop] - ends[start]), repeats)
        yield np.repeat(here, repeats), rows[number]
        start = stop


def _ranges(groups: I64, wanted: NDArray[np.integer], count: int) -> tuple[I64, I64]:
    """Where each wanted one of `count` groups begins and ends in `groups`, which rise."""
    if count > TABLE:
        return np.searchsorted(groups, wanted), np.searchsorted(groups, wanted, "right")
    starts = np.concatenate([[0], np.cumsum(np.bincount(groups, minlength=count))])
    return starts[wanted], starts[wanted + 1]


def _columns(boxes: NDArray[np.floating]) -> tuple[F64, ...]:
    """Left, top, right, bottom and area, float64 `[n]` each, of boxes given by corner, width and height: pycocotools' way, to
    the last bit."""
    x, y, right, bottom = boxes.T.astype(np.float64)
    width, height = right - x, bottom - y
    return x, y, x + width, y + height, width * height


def _overlapping(
    boxes: tuple[F64, ...], others: tuple[F64, ...], crowd: NDArray[np.bool_], detection: I64, box: I64, least: float
) -> Pairs:
    common = np.ones(1)
    for low, high in ((0, 2), (1, 3)):
        side = np.minimum(boxes[high][detection], others[high][box])
        side -= np.maximum(boxes[low][detection], others[low][box])
        # most pairs end here
        near = np.flatnonzero(side > 0)
        detection, box = detection[near], box[near]
        common = side[near] * (common[near] if low else 1.0)
    own = boxes[4][detection]
    overlap = common / np.where(crowd[box], own, own + others[4][box] - common)
    enough = overlap >= least
    return Pairs(detection[enough], box[enough], overlap[enough])

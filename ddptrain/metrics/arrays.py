"""What is compared: truth and detections of one dataset as flat arrays, and the overlap of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddptrain.system.printable import counted

Metrics = dict[str, float]
"""Values by flat key (`AP`, `class/car/AP50`, …), in 0..1; NaN where there is no truth."""


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The truth of one validation dataset.

    Attributes:
        name: the dataset's name, for the keys of the metrics.
        boxes: float `[n, 4]`, `(x1, y1, x2, y2)` in pixels of the file, image after image.
        labels: int `[n]`, the run's classes; not looked at where `ignore`.
        ignore: bool `[n]`: the box is a region in which no detection of any class is right or wrong.
        crowd: bool `[n]`: a group of the box's own class (COCO iscrowd): many detections may lie in it, none counts.
        area: float `[n]`: pixels² of the object, which may be smaller than its box (COCO: of its mask).
        offsets: int `[images + 1]`: image i has the boxes `offsets[i]:offsets[i + 1]`.
        annotated: bool `[classes]`: the classes that the dataset labels; only these are scored on it.
    """

    name: str
    boxes: NDArray[np.floating]
    labels: NDArray[np.integer]
    ignore: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    area: NDArray[np.floating]
    offsets: NDArray[np.integer]
    annotated: NDArray[np.bool_]

    @property
    def images(self) -> int:
        """Number of images, with or without boxes."""
        return len(self.offsets) - 1

    def image_of_boxes(self) -> NDArray[np.int64]:
        """int64 `[n]`: number of the image of each box."""
        return np.repeat(np.arange(self.images), np.diff(self.offsets))

    def select(self, kept: NDArray[np.bool_]) -> GroundTruth:
        """The truth with some of its boxes; every image stays."""
        offsets = np.concatenate([[0], np.cumsum(kept)])[self.offsets]
        columns = {name: getattr(self, name)[kept] for name in ("boxes", "labels", "ignore", "crowd", "area")}
        return replace(self, offsets=offsets, **columns)


class DetectionArrays(NamedTuple):
    """The detections of any number of images.

    Attributes:
        image: int64 `[n]`: number of the image in its dataset.
        boxes: float32 `[n, 4]`, `(x1, y1, x2, y2)` in pixels of the file.
        scores: float32 `[n]`.
        labels: int64 `[n]`, the run's classes.
    """

    image: NDArray[np.integer]
    boxes: NDArray[np.floating]
    scores: NDArray[np.floating]
    labels: NDArray[np.integer]

    @staticmethod
    def concatenate(parts: Sequence[DetectionArrays]) -> DetectionArrays:
        """The detections of several shards; of none: no detections."""
        empty = (np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        return DetectionArrays(*map(np.concatenate, zip(empty, *parts)))

    def select(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> DetectionArrays:
        """The detections at `index`."""
        return DetectionArrays(self.image[index], self.boxes[index], self.scores[index], self.labels[index])


def mean_known(values: NDArray[np.floating] | Sequence[float]) -> float:
    """The mean of the values that are numbers; nan where none is."""
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def scorable(truth: GroundTruth, detections: DetectionArrays) -> NDArray[np.bool_]:
    """bool `[n]`: which detections are of a class that the dataset annotates.

    Raises:
        ValueError: an image number or class outside the dataset's, or a box or score that is not finite.
    """
    image, labels = detections.image, detections.labels
    for what, numbers, count in (("image", image, truth.images), ("class", labels, len(truth.annotated))):
        strange = numbers[(numbers < 0) | (numbers >= count)]
        if len(strange):
            raise ValueError(f"{truth.name}: a detection has {what} {strange[0]}; there are {count}")
    bad = ~np.isfinite(detections.scores) | ~np.isfinite(detections.boxes).all(1)
    if bad.any():
        which = counted(int(bad.sum()), "detection has", "detections have")
        raise ValueError(f"{truth.name}: {which} a box or score that is not a finite number")
    return truth.annotated[labels]


def prepare(truth: GroundTruth, detections: DetectionArrays) -> tuple[DetectionArrays, NDArray[np.int64]]:
    """What can be scored: detections of annotated classes, by image and, in an image, best first.

    The sort is stable, so that neither the order in which shards arrive nor their number changes anything as long as
    the detections of one image stay in their order.

    Returns:
        The detections and their offsets, int64 `[images + 1]`, like those of the truth. Raises as `scorable` does.
    """
    kept = detections.select(scorable(truth, detections))
    kept = kept.select(np.lexsort((-kept.scores, kept.image)))
    return kept, np.searchsorted(kept.image, np.arange(truth.images + 1))


def overlaps(boxes: NDArray[np.floating], others: NDArray[np.floating], regions: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection over union of each box with each other box, or over the box's own area where that is a region.

    Args:
        boxes: `[d, 4]`, `(x1, y1, x2, y2)`.
        others: `[g, 4]`.
        regions: bool `[g]`: crowds and ignore regions, which a box need only lie in.

    Returns:
        float64 `[d, g]` in 0..1; 0 where the union has no area.
    """
    a, b = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(0).prod(-1)
    area_a, area_b = (a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1)
    union = np.where(regions, area_a, area_a + area_b - common)
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)

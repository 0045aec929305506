"""The protocol of the VisDrone-DET benchmark, whose numbers differ from COCO's on the same detections.

Source: the behaviour of github.com/VisDrone/VisDrone2018-DET-toolkit. Boxes of the truth and detections that lie by
half or more in the ignore regions are dropped first; the best 1, 10, 100 and 500 of the rest count per image, over all
classes; AP is the area under the precision's envelope, averaged over the IoU thresholds 0.50:0.05:0.95; recall counts
the boxes with score 0 (here: crowds) too; and the mean over classes weighs each class by the images that show it.

Deviations: areas are exact where the toolkit counts rounded pixels, and every box marked `ignore` is an ignore region:
the toolkit scores detections on category 11, `others`, as false alarms (to do so, `drop` that class in the dataset's
config).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth, Metrics, covered, match, overlaps, prepare
from ddptrain.metrics.voc import average_precision

THRESHOLDS = np.linspace(0.5, 0.95, 10)
CAPS = (1, 10, 100, 500)
"""Detections per image that recall is reported for; AP is reported for the last."""


@dataclass(slots=True)
class _Tally:
    """The detections of one class: per detection its result `[10, d]`, score and rank in its image."""

    images: int = 0
    truths: int = 0
    results: list[NDArray[np.int8]] = field(default_factory=list)
    scores: list[NDArray[np.floating]] = field(default_factory=list)
    ranks: list[NDArray[np.integer]] = field(default_factory=list)

    def values(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Average precision `[10]` and recall `[10, caps]`."""
        if not self.results:
            return np.zeros(10), np.zeros((10, len(CAPS)))
        result, ranks = np.concatenate(self.results, 1), np.concatenate(self.ranks)
        hits = result == 1
        recall = np.stack([hits[:, ranks < cap].sum(1) for cap in CAPS], 1) / max(self.truths, 1)
        order = np.argsort(-np.concatenate(self.scores), kind="stable")
        result = result[:, order]
        precision = [average_precision(row[row >= 0] == 1, self.truths) for row in result]
        return np.array(precision), recall


def _count_image(
    tallies: list[_Tally],
    boxes: NDArray[np.floating],
    labels: NDArray[np.integer],
    crowd: NDArray[np.bool_],
    detections: DetectionArrays,
) -> None:
    """Match what is left of one image, class by class."""
    for k in np.unique(np.concatenate([labels, detections.labels])):
        own, mine = labels == k, detections.labels == k
        tally = tallies[k]
        tally.images += bool(own.any())
        tally.truths += int(own.sum())
        overlap = overlaps(detections.boxes[mine], boxes[own], crowd[own])
        tally.results.append(match(overlap, crowd[None, own], crowd[own], THRESHOLDS)[0])
        tally.scores.append(detections.scores[mine])
        tally.ranks.append(np.flatnonzero(mine))


def evaluate(truth: GroundTruth, detections: DetectionArrays) -> Metrics:
    """The benchmark's metrics of one dataset.

    Args:
        truth: `ignore` marks the ignore regions, `crowd` the boxes with score 0.
        detections: images in any order, best first in each image where scores are equal.

    Returns:
        `AP`, `AP50`, `AP75`, `AR1`, `AR10`, `AR100`, `AR500`, in 0..1 (the toolkit prints percent), and `AP_classes`,
        the mean in which every class with truth counts once. NaN where there is no truth.
    """
    detections, ends = prepare(truth, detections)
    tallies = [_Tally() for _ in truth.annotated]
    scored = np.zeros(len(truth.ignore), bool)
    scored[~truth.ignore] = truth.annotated[truth.labels[~truth.ignore]]
    for i in range(truth.images):
        rows, here = slice(*truth.offsets[i : i + 2]), slice(*ends[i : i + 2])
        regions = truth.boxes[rows][truth.ignore[rows]]
        boxes, kept = truth.boxes[rows], detections.select(np.arange(here.start, here.stop))
        left = scored[rows] & (covered(boxes, regions) < 0.5)
        kept = kept.select(covered(kept.boxes, regions) < 0.5)
        kept = kept.select(np.arange(min(len(kept.scores), CAPS[-1])))
        _count_image(tallies, boxes[left], truth.labels[rows][left], truth.crowd[rows][left], kept)
    weights = np.array([t.images for t in tallies])
    names = ("AP", "AP50", "AP75", *(f"AR{cap}" for cap in CAPS), "AP_classes")
    if not weights.any():
        return dict.fromkeys(names, float("nan"))
    values = [t.values() for t in tallies]
    precision = np.stack([v[0] for v in values])
    precision[weights == 0] = 0  # NaN times no weight would be NaN
    recall = np.stack([v[1] for v in values]).mean(1)
    weighted = [np.average(v, weights=weights) for v in (precision.mean(1), precision[:, 0], precision[:, 5], *recall.T)]
    return dict(zip(names, map(float, [*weighted, precision[weights > 0].mean()]), strict=True))

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

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth, Metrics, covered, match, overlaps, prepare
from ddptrain.metrics.voc import average_precision

THRESHOLDS = np.linspace(0.5, 0.95, 10)
CAPS = (1, 10, 100, 500)
"""Detections per image that recall is reported for; AP is reported for the last."""


def _of_class(
    result: NDArray[np.int8], scores: NDArray[np.floating], ranks: NDArray[np.integer], truths: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision `[10]` and recall `[10, caps]` of one class, from its detections' results `[10, d]`, scores, ranks."""
    recall = np.stack([(result[:, ranks < cap] == 1).sum(1) for cap in CAPS], 1) / max(truths, 1)
    ordered = result[:, np.argsort(-scores, kind="stable")]
    return np.array([average_precision(row[row >= 0] == 1, truths) for row in ordered]), recall


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
    weights, truths = np.zeros((2, len(truth.annotated)), int)
    # of each image and class the results, scores, ranks and classes of the detections
    parts = [(np.zeros((10, 0), np.int8), np.zeros(0), np.zeros(0, int), np.zeros(0, int))]
    scored = np.zeros(len(truth.ignore), bool)
    scored[~truth.ignore] = truth.annotated[truth.labels[~truth.ignore]]
    for i in range(truth.images):
        rows, here = slice(*truth.offsets[i : i + 2]), slice(*ends[i : i + 2])
        regions = truth.boxes[rows][truth.ignore[rows]]
        boxes, kept = truth.boxes[rows], detections.select(np.arange(here.start, here.stop))
        left = scored[rows] & (covered(boxes, regions) < 0.5)
        kept = kept.select(covered(kept.boxes, regions) < 0.5)
        kept = kept.select(np.arange(min(len(kept.scores), CAPS[-1])))
        labels = truth.labels[rows][left]
        for k in np.unique(np.concatenate([labels, kept.labels])):
            own, mine = np.flatnonzero(left)[labels == k], kept.labels == k
            weights[k] += len(own) > 0
            truths[k] += len(own)
            crowd = truth.crowd[rows][own]
            result = match(overlaps(kept.boxes[mine], boxes[own], crowd), crowd[None], crowd, THRESHOLDS)[0]
            parts.append((result, kept.scores[mine], np.flatnonzero(mine), kept.labels[mine]))
    names = ("AP", "AP50", "AP75", *(f"AR{cap}" for cap in CAPS), "AP_classes")
    if not weights.any():
        return dict.fromkeys(names, float("nan"))
    result, scores, ranks, classes = (np.concatenate(p, -1) for p in zip(*parts))
    values = [_of_class(result[:, classes == k], scores[classes == k], ranks[classes == k], n) for k, n in enumerate(truths)]
    precision = np.stack([v[0] for v in values])
    precision[weights == 0] = 0  # NaN times no weight would be NaN
    recall = np.stack([v[1] for v in values]).mean(1)
    weighted = [np.average(v, weights=weights) for v in (precision.mean(1), precision[:, 0], precision[:, 5], *recall.T)]
    return dict(zip(names, map(float, [*weighted, precision[weights > 0].mean()]), strict=True))

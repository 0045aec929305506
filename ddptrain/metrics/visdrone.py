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

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth, Metrics, prepare
from ddptrain.metrics.matching import SIZES, match
from ddptrain.metrics.regions import without_regions
from ddptrain.metrics.voc import average_precision

CAPS = (1, 10, 100, 500)
"""Detections per image that recall is reported for; AP is reported for the last."""
NAMES = ("AP", "AP50", "AP75", *(f"AR{cap}" for cap in CAPS), "AP_classes")


def evaluate(truth: GroundTruth, detections: DetectionArrays) -> Metrics:
    """The benchmark's metrics of one dataset.

    Args:
        truth: `ignore` marks the ignore regions, `crowd` the boxes with score 0.
        detections: images in any order, best first in each image where scores are equal.

    Returns:
        `AP`, `AP50`, `AP75`, `AR1`, `AR10`, `AR100`, `AR500`, in 0..1 (the toolkit prints percent), and `AP_classes`,
        the mean in which every class with truth counts once. NaN where there is no truth.
    """
    left, kept = without_regions(truth, prepare(truth, detections)[0])
    # of each detection its place in the image, over all classes
    rank = np.arange(len(kept.image)) - np.searchsorted(kept.image, kept.image)
    kept, rank = kept.select(rank < CAPS[-1]), rank[rank < CAPS[-1]]
    matches = match(left, kept, max_detections=None, sizes=SIZES[:1])
    image, classes = left.image_of_boxes(), len(truth.annotated)
    truths = np.bincount(left.labels, minlength=classes)
    # how many images show each class
    weights = np.bincount(np.unique(image * classes + left.labels) % classes, minlength=classes)
    if not weights.any():
        return dict.fromkeys(NAMES, float("nan"))
    precision, recall = np.zeros((classes, len(matches.thresholds))), np.zeros((classes, len(CAPS)))
    for k in np.flatnonzero(truths).tolist():
        here = matches.of_class(k)
        result = matches.result[0, :, here]
        precision[k] = [average_precision(row[row >= 0] == 1, truths[k]) for row in result]
        own = rank[matches.row[here]]
        recall[k] = [(result[:, own < cap] == 1).sum(1).mean() / truths[k] for cap in CAPS]
    weighted = [np.average(v, weights=weights) for v in (precision.mean(1), precision[:, 0], precision[:, 5], *recall.T)]
    return dict(zip(NAMES, map(float, [*weighted, precision[weights > 0].mean()]), strict=True))

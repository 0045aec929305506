"""Detection on UAVDT: average precision at IoU 0.7, as its benchmark reports it.

Source: Du et al., "The Unmanned Aerial Vehicle Benchmark: Object Detection and Tracking", ECCV 2018, which sets the IoU to 0.7,
and gives one number a detector, for vehicles of any class. Detections that lie by half or more in the ignore regions are
dropped first. Average precision is the area under the precision's envelope. Papers since then report COCO's values on the same
frames; they are computed on what is left, too.

The benchmark's own program was not at hand to compare with; the numbers agree with those of VisDrone's rules at IoU 0.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth, Metrics, mean_known, prepare
from ddptrain.metrics.matches import Matches
from ddptrain.metrics.matching import SIZES, THRESHOLDS, match
from ddptrain.metrics.precision import precision_at_recalls
from ddptrain.metrics.regions import without_regions
from ddptrain.metrics.voc import average_precision

IOU = 0.7


def evaluate(truth: GroundTruth, detections: DetectionArrays, classes: Sequence[str]) -> Metrics:
    """The metrics of one dataset.

    Args:
        truth: `ignore` marks the ignore regions.
        detections: images in any order, best first in each image where scores are equal.

    Returns:
        `AP70`: the mean over the classes with truth; `AP70_vehicle`: all classes as one, the number of the benchmark's paper;
        `AP`, `AP50`, `AP75` as COCO defines them, of the best 100 detections of each class and image; `class/<class>/AP70`.
        NaN where there is no truth.
    """
    truth, detections = without_regions(truth, prepare(truth, detections)[0])
    each = _at_70(match(truth, detections, None, np.array([IOU]), SIZES[:1]))
    vehicles = replace(truth, labels=np.zeros_like(truth.labels), annotated=np.ones(1, bool))
    as_one = detections._replace(labels=np.zeros_like(detections.labels))
    (vehicle,) = _at_70(match(vehicles, as_one, None, np.array([IOU]), SIZES[:1]))
    precision = precision_at_recalls(match(truth, detections, sizes=SIZES[:1])).precision[..., 0]
    at = {f"AP{round(100 * iou)}": mean_known(precision[THRESHOLDS.tolist().index(iou)]) for iou in (0.5, 0.75)}
    return {
        "AP70": mean_known(each),
        "AP70_vehicle": vehicle,
        "AP": mean_known(precision),
        **at,
        **{f"class/{name}/AP70": value for name, value in zip(classes, each, strict=True)},
    }


def _at_70(matches: Matches) -> list[float]:
    """Average precision of each class, from matches at one overlap."""
    values = []
    for label, truths in enumerate(matches.truths().tolist()):
        result = matches.result[0, 0, matches.of_class(label)]
        values.append(average_precision(result[result >= 0] == 1, truths))
    return values

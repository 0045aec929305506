"""COCO's average precision by pycocotools, from flat arrays, for several datasets and all of them together.

Precision at 101 recalls, averaged over the IoU thresholds 0.50:0.05:0.95 and over classes (cocodataset.org, "Detection
evaluation"). Differences from `COCOeval.summarize`: every value counts the best `max_detections` of each class and
image (there `AP` is tied to 100 in any case), and what has no truth is NaN, not -1.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import iou

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth, Metrics, match, mean_known, prepare

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")
"""Of each scope: AP, at IoU 0.5 and 0.75, of objects below 32², between 32² and 96², and above 96² pixels; recall."""


class _ArrayEval(COCOeval):
    """COCOeval fed from arrays: its overlaps, parameters and accumulation, with the matching done over all thresholds
    and ranges of areas at once (the loops of COCOeval.evaluateImg take some ten times as long)."""

    def __init__(self, truth: GroundTruth, detections: DetectionArrays, max_detections: int) -> None:
        super().__init__(iouType="bbox")
        self.truth, self.detections = truth, detections
        self.params.imgIds = list(range(truth.images))
        self.params.catIds = list(range(len(truth.annotated)))
        self.params.maxDets = [max_detections]

    def evaluate(self) -> None:
        """Match every image; `evalImgs` stands by class, range of areas, image."""
        truth, areas, images = self.truth, len(self.params.areaRng), self.truth.images
        kept, ends = prepare(truth, self.detections)
        self.evalImgs: list[dict[str, Any] | None] = [None] * (len(truth.annotated) * areas * images)
        self._paramsEval = self.params
        boxes, kept_boxes = _xywh(truth.boxes), _xywh(kept.boxes)
        # an ignore region is a crowd of every class
        crowd = truth.ignore | truth.crowd
        for i in range(images):
            rows, here = slice(*truth.offsets[i : i + 2]), slice(*ends[i : i + 2])
            labels, kept_labels, everywhere = truth.labels[rows], kept.labels[here], truth.ignore[rows]
            for k in np.flatnonzero(truth.annotated):
                own = rows.start + np.flatnonzero((labels == k) | everywhere)
                mine = here.start + np.flatnonzero(kept_labels == k)[: self.params.maxDets[-1]]
                if len(own) or len(mine):
                    parts = self._match(boxes[own], truth.area[own], crowd[own], kept_boxes[mine], kept.scores[mine])
                    for a, part in enumerate(parts):
                        self.evalImgs[(k * areas + a) * images + i] = part

    def _match(
        self,
        boxes: NDArray[np.float64],
        area: NDArray[np.floating],
        crowd: NDArray[np.bool_],
        detections: NDArray[np.float64],
        scores: NDArray[np.floating],
    ) -> list[dict[str, Any]]:
        """What COCOeval.accumulate reads of one image and class, for each range of areas."""
        low, high = np.array(self.params.areaRng).T[:, :, None]
        ignored = crowd | (area < low) | (area > high)
        if len(boxes) and len(detections):
            overlap = iou(detections, boxes, crowd.astype(np.uint8))
        else:
            overlap = np.zeros((len(detections), len(boxes)))
        result = match(overlap, ignored, crowd, np.minimum(self.params.iouThrs, 1 - 1e-10))
        detection_area = detections[:, 2] * detections[:, 3]
        outside = (detection_area < low) | (detection_area > high)
        result[(result == 0) & outside[:, None]] = -1
        return [
            {"dtScores": scores, "dtMatches": r == 1, "dtIgnore": r == -1, "gtIgnore": g}
            for r, g in zip(result, ignored, strict=True)
        ]


def _xywh(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    boxes = boxes.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _summary(curves: dict[str, Any], classes: slice = slice(None)) -> Metrics:
    """Values of `KEYS` over some classes, from precision `[T, R, K, A, M]` and recall `[T, K, A, M]`."""
    precision, recall = curves["precision"][:, :, classes, :, -1], curves["recall"][:, classes, 0, -1]
    values = (precision[..., 0], precision[0, ..., 0], precision[5, ..., 0], *(precision[..., a] for a in (1, 2, 3)), recall)
    # pycocotools marks what is not known by -1
    return {key: mean_known(v[v > -1]) for key, v in zip(KEYS, values, strict=True)}


def _union(parts: list[_ArrayEval], max_detections: int) -> dict[str, Any]:
    """Curves of all datasets together, from the matches in each image."""
    if len(parts) == 1:
        return parts[0].eval
    whole = COCOeval(iouType="bbox")
    whole.params.maxDets = [max_detections]
    whole.params.catIds = parts[0].params.catIds
    whole.params.imgIds = list(range(sum(len(part.params.imgIds) for part in parts)))
    whole._paramsEval = whole.params
    blocks = len(whole.params.catIds) * len(whole.params.areaRng)
    whole.evalImgs = [
        image
        for block in range(blocks)
        for part in parts
        for image in part.evalImgs[block * part.truth.images : (block + 1) * part.truth.images]
    ]
    whole.accumulate()
    return whole.eval


def evaluate(
    truths: Sequence[GroundTruth],
    detections: Sequence[DetectionArrays],
    classes: Sequence[str],
    max_detections: int = 100,
) -> Metrics:
    """COCO metrics of all datasets together, of each dataset and of each class.

    A class is scored only on the datasets that annotate it; elsewhere its detections are dropped. Ignore regions are
    crowds of every annotated class. The result depends on the order of detections only within one image and score.

    Args:
        truths: one per validation dataset, at least one.
        detections: of each dataset, in the same order; images in any order, all of each image's detections in one part.
        classes: names of the run's classes.
        max_detections: how many of each class count in an image, best first; COCO's own number is 100.

    Returns:
        For all datasets together the `KEYS`; `class/<class>/<key>`; `dataset/<dataset>/<key>`; and `AP_datasets`, the
        mean of the datasets' AP. All keys are always given, NaN without truth.

    Raises:
        ValueError: a detection has an image or class out of range or a number that is not finite.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        parts = [_ArrayEval(t, d, max_detections) for t, d in zip(truths, detections, strict=True)]
        for part in parts:
            part.evaluate()
            part.accumulate()
        curves = _union(parts, max_detections)
    metrics = _summary(curves)
    for k, name in enumerate(classes):
        metrics |= {f"class/{name}/{key}": v for key, v in _summary(curves, slice(k, k + 1)).items()}
    for part in parts:
        metrics |= {f"dataset/{part.truth.name}/{key}": v for key, v in _summary(part.eval).items()}
    return metrics | {"AP_datasets": mean_known([metrics[f"dataset/{t.name}/AP"] for t in truths])}

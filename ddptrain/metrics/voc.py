"""Average precision of the PASCAL VOC challenge, at one IoU, by 11 points or by all of them.

Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, and its development kit.
Deviation: boxes are continuous here; the kit counts pixels, so that its sides are longer by 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth, Metrics, mean_known, overlaps, prepare

Points = Literal["11", "all"]


def average_precision(hits: NDArray[np.bool_], truths: int, points: Points = "all") -> float:
    """Average precision of detections in order of falling score.

    Args:
        hits: bool `[n]`: which are right.
        truths: number of objects; with 0 the result is NaN.
        points: `11`: mean of the best precision at a recall of at least 0, 0.1, …, 1 (VOC 2007); `all`: area under the
            precision's envelope (VOC 2010 on).
    """
    if truths == 0:
        return float("nan")
    cumulative = hits.cumsum()
    recall, precision = cumulative / truths, cumulative / np.arange(1, len(hits) + 1)
    # at each place the best precision from there on; there is nothing beyond the last
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if points == "11":
        # cumulative / truths may fall a rounding short of k / 10
        at = np.searchsorted(recall, np.arange(11) / 10 - 1e-12)
        return float(envelope[at].mean())
    return float((np.diff(recall, prepend=0.0) * envelope[:-1]).sum())


def _classify(
    boxes: NDArray[np.floating], truth: NDArray[np.floating], difficult: NDArray[np.bool_], iou: float
) -> NDArray[np.int8]:
    """1 for a hit, 0 for a false alarm, -1 for a difficult box, of detections `[d, 4]`, best first."""
    result = np.zeros(len(boxes), np.int8)
    if len(truth) == 0 or len(boxes) == 0:
        return result
    overlap = overlaps(boxes, truth, np.zeros(len(truth), bool))
    best = overlap.argmax(1)
    enough = overlap.max(1) >= iou
    result[enough & difficult[best]] = -1
    candidates = np.flatnonzero(enough & ~difficult[best])
    # the first to claim a box has it; whoever claims it again is a false alarm
    result[candidates[np.unique(best[candidates], return_index=True)[1]]] = 1
    return result


def evaluate(
    truth: GroundTruth, detections: DetectionArrays, classes: Sequence[str], iou: float = 0.5, points: Points = "all"
) -> Metrics:
    """VOC's metrics of one dataset.

    Each detection claims the box of its class that it overlaps most. Crowds, and ignore regions for every class, are
    VOC's `difficult` boxes: not counted, and neither is a detection that claims one.

    Returns:
        `AP`: mean over the classes with truth; `class/<class>/AP`, NaN without truth.
    """
    detections, ends = prepare(truth, detections)
    difficult = truth.ignore | truth.crowd
    results: list[list[NDArray[np.int8]]] = [[] for _ in classes]
    scores: list[list[NDArray[np.floating]]] = [[] for _ in classes]
    for i in range(truth.images):
        rows, here = slice(*truth.offsets[i : i + 2]), slice(*ends[i : i + 2])
        for k in np.unique(detections.labels[here]):
            own = (truth.labels[rows] == k) | truth.ignore[rows]
            mine = detections.labels[here] == k
            boxes = detections.boxes[here][mine]
            results[k].append(_classify(boxes, truth.boxes[rows][own], difficult[rows][own], iou))
            scores[k].append(detections.scores[here][mine])
    metrics: Metrics = {}
    for k, name in enumerate(classes):
        result = np.concatenate([np.zeros(0, np.int8), *results[k]])
        order = np.argsort(-np.concatenate([np.zeros(0), *scores[k]]), kind="stable")
        hits = result[order][result[order] >= 0] == 1
        count = int(((truth.labels == k) & ~difficult).sum()) if truth.annotated[k] else 0
        metrics[f"class/{name}/AP"] = average_precision(hits, count, points)
    return {"AP": mean_known(list(metrics.values())), **metrics}

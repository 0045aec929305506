"""What a single number hides: precision over recall, the score threshold to use, and which classes are confused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth, covered, match, overlaps, prepare


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall of one class if detections from a score on are kept.

    Attributes:
        scores: `[n]`, the distinct scores, falling.
        precision: float64 `[n]` in 0..1; NaN where everything kept so far lies in ignore regions.
        recall: float64 `[n]` in 0..1; NaN without truth.
        truths: number of objects to be found.
    """

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    truths: int

    def best(self) -> tuple[float, float]:
        """(score threshold, F1) where F1, the harmonic mean of precision and recall, is largest; NaN, NaN where no
        detection is right."""
        total = self.precision + self.recall
        f1 = np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)
        if not f1.any():
            return float("nan"), float("nan")
        at = int(f1.argmax())
        return float(self.scores[at]), float(f1[at])


def _curve(results: NDArray[np.int8], scores: NDArray[np.floating], truths: int) -> Curve:
    order = np.argsort(-scores, kind="stable")
    results, falling = results[order], np.asarray(scores[order], np.float64)
    # equal scores are kept or dropped together
    ends = np.flatnonzero(np.diff(falling, append=-np.inf))
    hits, alarms = (results == 1).cumsum()[ends], (results == 0).cumsum()[ends]
    with np.errstate(invalid="ignore"):
        return Curve(falling[ends], hits / (hits + alarms), hits / np.float64(truths), truths)


def curves(
    truths: Sequence[GroundTruth], detections: Sequence[DetectionArrays], classes: Sequence[str], iou: float = 0.5
) -> dict[str, Curve]:
    """A curve per class over all datasets that annotate it, and one, named "", of all classes together.

    Matching is COCO's: best first, crowds and ignore regions neither right nor wrong.
    """
    results: list[list[NDArray[np.int8]]] = [[] for _ in classes]
    scores: list[list[NDArray[np.floating]]] = [[] for _ in classes]
    counts = np.zeros(len(classes), np.int64)
    for truth, given in zip(truths, detections, strict=True):
        found, ends = prepare(truth, given)
        regions = truth.ignore | truth.crowd
        scored = truth.labels[~regions]
        counts += np.bincount(scored, minlength=len(classes)) * truth.annotated
        for i in range(truth.images):
            rows, here = slice(*truth.offsets[i : i + 2]), slice(*ends[i : i + 2])
            for k in np.unique(found.labels[here]):
                own = (truth.labels[rows] == k) | truth.ignore[rows]
                mine = found.labels[here] == k
                crowd = regions[rows][own]
                overlap = overlaps(found.boxes[here][mine], truth.boxes[rows][own], crowd)
                results[k].append(match(overlap, crowd[None], crowd, np.array([iou]))[0, 0])
                scores[k].append(found.scores[here][mine])
    joined = [np.concatenate([np.zeros(0, np.int8), *r]) for r in results]
    joined_scores = [np.concatenate([np.zeros(0), *s]) for s in scores]
    made = {name: _curve(joined[k], joined_scores[k], int(counts[k])) for k, name in enumerate(classes)}
    made[""] = _curve(np.concatenate(joined), np.concatenate(joined_scores), int(counts.sum()))
    return made


def confusion_matrix(
    truth: GroundTruth, detections: DetectionArrays, score: float = 0.25, iou: float = 0.45
) -> NDArray[np.int64]:
    """Which class was found where which class is; matrices of several datasets may be added.

    Detections from `score` on and boxes are paired one to one, whatever their classes, the largest overlap first, down
    to `iou`. A detection without a partner that lies by half in crowds or ignore regions is left out.

    Returns:
        int64 `[classes + 1, classes + 1]`: rows are the truth, columns what was found; the last row and column are the
        background: false alarms and missed boxes.
    """
    found, ends = prepare(truth, detections)
    classes = len(truth.annotated)
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    regions = truth.ignore | truth.crowd
    for i in range(truth.images):
        rows = np.arange(*truth.offsets[i : i + 2])
        real, others = rows[~regions[rows]], truth.boxes[rows[regions[rows]]]
        real = real[truth.annotated[truth.labels[real]]]
        here = found.select(np.arange(*ends[i : i + 2]))
        here = here.select(here.scores >= score)
        overlap = overlaps(here.boxes, truth.boxes[real], np.zeros(len(real), bool))
        d, g = np.nonzero(overlap >= iou)
        free_d, free_g = np.ones(len(here.scores), bool), np.ones(len(real), bool)
        for pair in np.argsort(-overlap[d, g], kind="stable"):
            if free_d[d[pair]] and free_g[g[pair]]:
                free_d[d[pair]] = free_g[g[pair]] = False
                matrix[truth.labels[real[g[pair]]], here.labels[d[pair]]] += 1
        free_d &= covered(here.boxes, others) < 0.5
        matrix[classes] += np.bincount(here.labels[free_d], minlength=classes + 1)
        matrix[:, classes] += np.bincount(truth.labels[real[free_g]], minlength=classes + 1)
    return matrix

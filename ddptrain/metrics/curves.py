"""What a threshold on the confidence does: precision, recall and F1 of detections, calibration, and what is taken for what.

All at the lowest overlap of the matches, IoU 0.5, where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.arrays import overlaps
from ddptrain.metrics.matches import F64, I64, Matches

GRID = np.linspace(0, 1, 1001)
"""Confidences at which curves of several classes are averaged."""
BINS = 10
"""Bins of equal width of the reliability diagram."""


class Curve(NamedTuple):
    """One class over its distinct scores, falling: what holds of the detections from that score on.

    Attributes:
        truths: the number of objects.
        score, precision, recall: float64 `[n]` in 0..1; the recall is NaN without truth.
    """

    truths: int
    score: F64
    precision: F64
    recall: F64

    @property
    def f1(self) -> F64:
        """The harmonic mean of precision and recall, `[n]`; 0 where both are."""
        return harmonic_mean(self.precision, self.recall)

    def at(self, scores: F64) -> Curve:
        """The curve at these thresholds, rising: above the highest score the recall is 0, the precision that of the highest."""
        if not len(self.score):
            return Curve(self.truths, scores, np.zeros(len(scores)), np.zeros(len(scores)))
        last = np.searchsorted(-self.score, -scores, "right") - 1
        recall = np.where(last < 0, 0, self.recall[last])
        return Curve(self.truths, scores, self.precision[np.maximum(last, 0)], recall)


def harmonic_mean(a: F64, b: F64) -> F64:
    """`2ab / (a + b)`, 0 where both are 0."""
    return np.divide(2 * a * b, a + b, out=np.zeros(np.broadcast(a, b).shape), where=a + b > 0)


def class_curve(matches: Matches, label: int) -> Curve:
    """The curve of a class."""
    rows = matches.of_class(label)
    result = matches.result[0, 0, rows]
    counted = result >= 0
    score, hit = matches.score[rows][counted].astype(np.float64), result[counted] == 1
    last = np.flatnonzero(np.diff(score, append=-np.inf))
    found = hit.cumsum()[last]
    truths = int(matches.truths()[label])
    return Curve(truths, score[last], found / (last + 1), found / truths if truths else np.full(len(last), np.nan))


THRESHOLDS = np.linspace(0, 1, 101)
"""From which on `counts` counts."""


def counts(matches: Matches, label: int) -> tuple[I64, I64, I64, I64]:
    """Detections of a class that are right, false alarms, boxes that are missed, and zeros (there is no true negative): from
    each of `THRESHOLDS` on, int64 `[101]`."""
    rows = matches.of_class(label)
    result, score = matches.result[0, 0, rows], matches.score[rows].astype(np.float64)
    hits, alarms = (_from_each_on(score[result == value]) for value in (1, 0))
    return hits, alarms, int(matches.truths()[label]) - hits, np.zeros_like(hits)


def counts_of_answers(score: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[I64, I64, I64, I64]:
    """The same of samples with a probability and a truth, `[n]`, the last the true negatives."""
    hits, alarms = _from_each_on(score[truth]), _from_each_on(score[~truth])
    return hits, alarms, int(truth.sum()) - hits, int((~truth).sum()) - alarms


def _from_each_on(score: NDArray[np.floating]) -> I64:
    return len(score) - np.searchsorted(np.sort(score), THRESHOLDS).astype(np.int64)


class Mean(NamedTuple):
    """Curves over the grid of confidences, averaged over the classes with truth, and the confidence of the best mean F1.

    Attributes:
        precision, recall, f1: float64 `[1001]`.
        threshold: the confidence at which the mean F1 is greatest; of several the highest.
    """

    precision: F64
    recall: F64
    f1: F64
    threshold: float


def mean_curve(curves: Sequence[Curve]) -> Mean | None:
    """The mean of curves; None where no class has truth."""
    at = [c.at(GRID) for c in curves if c.truths]
    if not at:
        return None
    precision, recall, f1 = (np.mean([getattr(c, n) for c in at], 0) for n in ("precision", "recall", "f1"))
    best = len(f1) - 1 - int(f1[::-1].argmax())
    return Mean(precision, recall, f1, float(GRID[best]))


class Point(NamedTuple):
    """What holds at one threshold.

    Attributes:
        truths, detections: how many there are.
        precision, recall, f1: in 0..1, NaN of none.
    """

    truths: int
    detections: int
    precision: float
    recall: float
    f1: float


def point(matches: Matches, threshold: float, truths: NDArray[np.bool_], detections: NDArray[np.bool_]) -> Point:
    """Precision of some of the detections, `[D]`, and recall of some of the boxes, `[G]`, from one confidence on."""
    kept = matches.score >= threshold
    result, wanted = matches.result[0, 0], truths & matches.counts[0]
    found = np.zeros(len(wanted), bool)
    found[matches.truth[0, kept & (result == 1)]] = True
    own = kept & detections & (result >= 0)
    n, d = int(wanted.sum()), int(own.sum())
    precision = float((result[own] == 1).mean()) if d else float("nan")
    recall = float(found[wanted].mean()) if n else float("nan")
    f1 = 2 * precision * recall / (precision + recall) if precision + recall > 0 else precision + recall
    return Point(n, d, precision, recall, f1)


class Calibration(NamedTuple):
    """Whether a confidence is a probability.

    Attributes:
        confidence: float64 `[BINS]`: mean confidence of each bin's detections; NaN of none.
        precision: float64 `[BINS]`: the part of them that is right.
        number: int64 `[BINS]`: how many detections are in each.
        error: the mean difference of the two, each bin by its detections (expected calibration error, Guo et al., "On
            Calibration of Modern Neural Networks", ICML 2017); NaN without detections.
    """

    confidence: F64
    precision: F64
    number: I64
    error: float


def calibration(score: NDArray[np.floating], right: NDArray[np.bool_]) -> Calibration:
    """Of answers with a confidence in 0..1 that are right or wrong."""
    return calibration_of_bins(bins_of(score, right))


def bins_of(score: NDArray[np.floating], right: NDArray[np.bool_]) -> F64:
    """Such answers in bins of equal width of their confidence, float64 `[3, BINS]`: how many there are, the sum of their
    confidences, and how many are right. Bins of several sets add up to those of all."""
    bins = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    return np.stack([np.bincount(bins, weights, BINS) for weights in (np.ones(len(bins)), score, right)])


def calibration_of_bins(bins: F64) -> Calibration:
    """Of answers that `bins_of` has counted, `[3, BINS]`."""
    number = bins[0].astype(np.int64)
    with np.errstate(invalid="ignore"):
        confidence, precision = bins[1:] / number
    some = number > 0
    gap = np.abs(confidence - precision)[some] * number[some]
    return Calibration(confidence, precision, number, float(gap.sum() / number.sum()) if some.any() else float("nan"))


def confusion(matches: Matches, threshold: float) -> I64:
    """What is taken for what, from one confidence on; int64 `[C + 1, C + 1]`: rows are the truth, columns the detections, and
    the last of each is the background: a false alarm, a miss.

    Those that are right stand on the diagonal. Then each false alarm, the most confident first, is given to the box of another
    class that it overlaps most (0.5 at least) among those that nothing was given to.
    """
    kept = np.flatnonzero((matches.score >= threshold) & (matches.result[0, 0] >= 0))
    kept = kept[np.argsort(-matches.score[kept], kind="stable")]
    taken = np.full(len(matches.truth_label), matches.classes)
    given = np.full(len(kept), matches.classes)
    hit = matches.result[0, 0, kept] == 1
    taken[matches.truth[0, kept[hit]]] = matches.label[kept[hit]]
    given[hit] = matches.label[kept[hit]]
    starts = np.searchsorted(matches.truth_image, np.arange(matches.images + 1))
    for i in np.flatnonzero(~hit).tolist():
        rows = np.arange(*starts[matches.image[kept[i]] : matches.image[kept[i]] + 2])
        rows = rows[matches.counts[0, rows] & (taken[rows] == matches.classes)]
        overlap = overlaps(matches.box[kept[i]][None], matches.truth_box[rows], np.zeros(len(rows), bool))[0]
        if overlap.max(initial=0) >= matches.thresholds[0]:
            best = rows[overlap.argmax()]
            taken[best], given[i] = matches.label[kept[i]], matches.truth_label[best]
    out = np.zeros((matches.classes + 1, matches.classes + 1), np.int64)
    wanted = matches.counts[0]
    np.add.at(out, (matches.truth_label[wanted], taken[wanted]), 1)
    alarm = given == matches.classes
    np.add.at(out[-1], matches.label[kept[alarm]], 1)
    return out


def of_images(matches: Matches, images: NDArray[np.bool_]) -> Matches:
    """The detections and boxes of some of the images, bool `[images]`; the others stay, empty."""
    chosen = matches.select(images[matches.image])
    return replace(chosen, counts=chosen.counts & images[chosen.truth_image])

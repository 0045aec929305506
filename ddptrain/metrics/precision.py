"""Average precision as COCO defines it, from stored matches.

Precision at 101 recalls, each the best at that recall or a higher one, and its mean (cocodataset.org, "Detection evaluation").
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ddptrain.metrics.matches import F64, Matches

RECALLS = np.linspace(0.0, 1.0, 101)


class Curves(NamedTuple):
    """Of T overlaps, C classes, A sizes; NaN where there is no truth.

    Attributes:
        precision: float64 `[T, 101, C, A]`: the best at each of the `RECALLS` or beyond.
        recall: float64 `[T, C, A]`: of all detections together.
    """

    precision: F64
    recall: F64


def precision_at_recalls(matches: Matches) -> Curves:
    """The curves of COCO's evaluation, equal to pycocotools' `COCOeval.eval` to the last bit (which has -1 for NaN)."""
    sizes, levels = matches.result.shape[:2]
    precision = np.full((levels, len(RECALLS), matches.classes, sizes), np.nan)
    recall = np.full((levels, matches.classes, sizes), np.nan)
    ends = np.searchsorted(matches.label, np.arange(matches.classes + 1))
    for size in range(sizes):
        truths = matches.truths(size)
        for label in np.flatnonzero(truths).tolist():
            result, count = matches.result[size, :, ends[label] : ends[label + 1]], truths[label]
            best = _envelope(result)
            # the first detection by which each recall is reached is a hit: this one
            hit = np.searchsorted(np.arange(1, count + 1) / count, RECALLS)
            precision[:, :, label, size] = best[:, np.minimum(hit, best.shape[1] - 1)]
            recall[:, label, size] = (result == 1).sum(1) / count
    return Curves(precision, recall)


def _envelope(result: np.ndarray) -> F64:
    """float64 `[T, hits + 1]`: the best precision from each hit on, from results `[T, D]`, the highest score first; 0 where
    there is no hit any more."""
    levels, width = result.shape
    hit, neither = np.flatnonzero(result == 1), np.flatnonzero(result < 0)
    level = hit // max(width, 1)
    hits = np.bincount(level, minlength=levels)
    number = np.arange(len(hit)) - np.repeat(np.cumsum(hits) - hits, hits)
    # detections that count, down to each hit: all but those that count neither way
    before = np.searchsorted(neither, hit) - np.searchsorted(neither, np.arange(levels) * width)[level]
    counted = hit - level * width + 1 - before
    best = np.zeros((levels, int(hits.max(initial=0)) + 1))
    # pycocotools' guard against 0 / 0, which only here changes a bit: at a first detection
    best[level, number] = (number + 1) / (counted + np.spacing(1))
    return np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]

"""Metrics of segmentation, from one confusion matrix of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.arrays import Metrics
from ddptrain.structures import VOID

I64 = NDArray[np.int64]


def count_cells(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> tuple[I64, I64]:
    """The confusion matrix of one image without its zeros, small enough to travel.

    Args:
        truth: uint8 `[H, W]`, class of each pixel, `VOID` where it does not count.
        predicted: uint8 `[H, W]`.
        classes: number of classes.

    Returns:
        int64 `[k]`: cells that are not 0 as `truth * classes + predicted`, and int64 `[k]`: their pixels.
    """
    valid = truth != VOID
    cells = np.bincount(truth[valid].astype(np.int64) * classes + predicted[valid], minlength=classes * classes)
    occupied = np.flatnonzero(cells)
    return occupied, cells[occupied]


def confusion(images: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]], classes: int) -> I64:
    """The sum of the images' cells, int64 `[classes, classes]`: rows are the truth, columns the answers."""
    matrix = np.zeros(classes * classes, np.int64)
    for cells, pixels in images:
        matrix[cells] += pixels
    return matrix.reshape(classes, classes)


def intersection_over_union(matrix: I64) -> NDArray[np.float64]:
    """IoU of each class `[C]`; nan for a class without a pixel in the truth."""
    hits, real, answers = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(real > 0, hits / (real + answers - hits), np.nan)


def score(matrix: I64, classes: Sequence[str]) -> Metrics:
    """Metrics of a confusion matrix `[C, C]`.

    Returns:
        `mIoU` and `mean_accuracy` (means over the classes that the truth shows), `pixel_accuracy`, `one_answer` (part of
        the pixels that got the most frequent answer), and `IoU` and `accuracy` (recall) of each class.
    """
    total, hits, real = int(matrix.sum()), np.diag(matrix), matrix.sum(1)
    iou = intersection_over_union(matrix)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(real > 0, hits / real, np.nan)
    shown = real > 0
    out: Metrics = {
        "mIoU": float(iou[shown].mean()) if total else float("nan"),
        "pixel_accuracy": float(hits.sum() / total) if total else float("nan"),
        "mean_accuracy": float(recall[shown].mean()) if total else float("nan"),
        "one_answer": float(matrix.sum(0).max() / total) if total else float("nan"),
    }
    for k, name in enumerate(classes):
        out |= {f"class/{name}/IoU": float(iou[k]), f"class/{name}/accuracy": float(recall[k])}
    return out

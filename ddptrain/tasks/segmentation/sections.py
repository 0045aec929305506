"""What the page of a run says of a segmenter's evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ddptrain.metrics import miou
from ddptrain.metrics.curves import calibration_of_bins, mean_curve
from ddptrain.metrics.pixel_confidence import STEPS, Confidences, curve_of_pixels
from ddptrain.reporting.run_page.parts import Matrix, Numbers, Part, Picture, Section, Text
from ddptrain.tasks.parts import DRAWN, calibration_bars, confidence_charts

CONFUSIONS = 20
"""Confusions that are listed, those of the most pixels."""
LISTED = 30
"""Images that are listed, those with the lowest IoU."""


def segmentation_sections(
    matrix: np.ndarray, confidences: Confidences, ranked: Sequence[tuple[str, str, float]], classes: Sequence[str]
) -> list[Section]:
    """Curves, what is confused with what, and the worst images.

    Args:
        matrix: int64 `[C, C]`: pixels by true and predicted class.
        ranked: dataset, name and mean IoU of each image, the lowest first.
    """
    total = max(int(matrix.sum()), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        real, answered, right = matrix.sum(1), matrix.sum(0), np.diag(matrix)
        columns = (real / total, miou.intersection_over_union(matrix), right / answered, right / real)
        f1 = 2 * right / (real + answered)
    rows = [[c, *(float(column[k]) for column in columns), float(f1[k])] for k, c in enumerate(classes)]
    pixels = Numbers(("class", "part of the pixels", "IoU", "precision", "recall", "F1"), rows, "pixels by class", ("IoU",))
    confused = Matrix("part of the pixels of each class", classes, matrix.tolist(), percent=True)
    images: list[Part] = [
        Text("The images with the lowest mean IoU: either the model is wrong, or the mask."),
        Numbers(("dataset", "file", "mean IoU"), ranked[:LISTED], bars=("mean IoU",)),
        Picture("worst_images.jpg", "the lowest IoU: truth, prediction"),
        Picture("best_images.jpg", "the highest IoU: truth, prediction"),
    ]
    return [
        Section("confidence", "Precision, recall and confidence", list(_confidence(confidences, classes))),
        Section("confusion", "Precision, recall and confusion", [pixels, confused, _confusions(matrix, classes)]),
        Section("errors", "Errors and suspected labels", images),
    ]


def _confidence(found: Confidences, classes: Sequence[str]) -> Iterator[Part]:
    curves = [curve_of_pixels(of_class) for of_class in found.histogram]
    mean = mean_curve(curves)
    if mean is None:
        return
    known = sum(c.truths > 0 for c in curves)
    yield Text(
        f"A pixel counts for every class that is at least that probable there, in steps of {1 / STEPS:g}. The dashed line is "
        f"at confidence {mean.threshold:.2f}, where the mean F1 is highest. "
        "The calibration is that of the most probable classes."
        + (f" The {DRAWN} classes with the most pixels are drawn." if known > DRAWN else "")
    )
    yield from confidence_charts(classes, curves, mean)
    yield calibration_bars(calibration_of_bins(found.answers))


def _confusions(matrix: np.ndarray, classes: Sequence[str]) -> Numbers:
    """The largest confusions."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    cells = [divmod(int(place), len(classes)) for place in order]
    lost = max(int(wrong.sum()), 1)
    rows = [
        [classes[i], classes[j], float(wrong[i, j] / matrix[i].sum()), float(wrong[i, j] / lost)]
        for i, j in cells
        if wrong[i, j]
    ]
    columns = ("truth", "taken for", "part of the class", "part of all errors")
    return Numbers(columns, rows, "the largest confusions", ("part of all errors",))

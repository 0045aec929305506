"""From the prediction of a dense head to detections: threshold, class-wise non-maximum suppression, the best max_detections."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ddptrain.config.detection_eval import DetectionEval
from ddptrain.models.suppression import suppress
from ddptrain.models.yolo.prediction import Prediction
from ddptrain.structures import Detections

Candidates = tuple[Tensor, Tensor, Tensor]
"""Boxes `[n, 4]`, scores `[n]` and labels `[n]` of one image, best first."""
MAX_CANDIDATES = 30_000
"""(box, class) pairs of one image that enter the suppression at most, the best ones."""


@torch.no_grad()
def detections(pred: Prediction, settings: DetectionEval, one_to_one: bool = False) -> list[Detections]:
    """The detections of each image, best first, boxes in input pixels.

    A point may report several classes. Ties keep the order of (point, class), so that the result is a function of
    the prediction alone. Boxes are as predicted and may leave the image.

    Args:
        pred: prediction for B images.
        settings: scores at or below its threshold are dropped; how boxes suppress others; how many are kept per image.
        one_to_one: no object has two points, so that no box suppresses another.

    Returns:
        B items.
    """
    scores, boxes = pred.scores(), pred.boxes()
    together = _together if scores.is_cuda else _each
    candidates = together(scores, boxes, settings.score_threshold)
    if one_to_one:
        return [Detections(*(column[: settings.max_detections] for column in found)) for found in candidates]
    return [suppress(box, score, label, settings) for box, score, label in candidates]


def _each(scores: Tensor, boxes: Tensor, threshold: float) -> Iterator[Candidates]:
    """Image by image, which costs nothing on the CPU."""
    for own, of_image in zip(scores, boxes):
        point, label = (own > threshold).nonzero(as_tuple=True)
        score, order = own[point, label].sort(descending=True, stable=True)
        score, order = score[:MAX_CANDIDATES], order[:MAX_CANDIDATES]
        yield of_image[point[order]], score, label[order]


def _together(scores: Tensor, boxes: Tensor, threshold: float) -> Iterator[Candidates]:
    """All images at once: the host waits for a GPU once a batch."""
    above = scores > threshold
    counts = above.flatten(1).sum(1).tolist()
    image, point, label = torch.nonzero_static(above, size=sum(counts)).unbind(1)
    for score, place, of_class in zip(*(t.split(counts) for t in (scores[image, point, label], boxes[image, point], label))):
        score, order = score.sort(descending=True, stable=True)
        score, order = score[:MAX_CANDIDATES], order[:MAX_CANDIDATES]
        yield place[order], score, of_class[order]

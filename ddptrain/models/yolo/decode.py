"""What the dense head predicts, and its detections: threshold, class-wise non-maximum suppression, the best max_detections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ddptrain.config.detection import DetectionEval
from ddptrain.models.suppression import suppress
from ddptrain.structures import Detections

Candidates = tuple[Tensor, Tensor, Tensor]
"""Boxes `[n, 4]`, scores `[n]` and labels `[n]` of one image, best first."""
MAX_CANDIDATES = 30_000
"""(box, class) pairs of one image that enter the suppression at most, the best ones."""


class DensePrediction(NamedTuple):
    """The prediction of an anchor-free dense head for A anchor points of each image.

    Attributes:
        logits: `[B, A, classes]`, before the sigmoid.
        distances: `[B, A, 4, bins]`: logits of the distribution over the distance, in strides, from the anchor point to
            the left, top, right and bottom side (Generalized Focal Loss, arXiv 2006.04388); `bins == 1` means that the
            single value is the distance itself.
        points: float32 `[A, 2]`: anchor points (x, y) in input pixels.
        strides: float32 `[A]`: stride of the level of each point, in input pixels.
    """

    logits: Tensor
    distances: Tensor
    points: Tensor
    strides: Tensor

    def boxes(self) -> Tensor:
        """Boxes `[B, A, 4]` in input pixels, float32 also under autocast: expectation of each distribution around its point."""
        d = self.distances.float()
        bins = d.shape[-1]
        if bins > 1:
            with torch.autocast(d.device.type, enabled=False):
                d = d.softmax(-1) @ torch.arange(bins, device=d.device, dtype=d.dtype)
        else:
            d = d[..., 0]
        d = d * self.strides[:, None]
        return torch.cat([self.points - d[..., :2], self.points + d[..., 2:]], -1)


@torch.no_grad()
def detections(pred: DensePrediction, settings: DetectionEval) -> list[Detections]:
    """The detections of each image, best first, boxes in input pixels.

    A point may report several classes. Ties keep the order of (point, class), so that the result is a function of
    the prediction alone. Boxes are as predicted and may leave the image.

    Args:
        pred: prediction for B images.
        settings: scores at or below its threshold are dropped; how boxes suppress others; how many are kept per image.

    Returns:
        B items.
    """
    scores, boxes = pred.logits.float().sigmoid(), pred.boxes()
    together = _together if scores.is_cuda else _each
    return [suppress(box, score, label, settings) for box, score, label in together(scores, boxes, settings.score_threshold)]


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

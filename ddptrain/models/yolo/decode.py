"""What the dense head predicts, and its detections: threshold, class-wise non-maximum suppression, the best max_detections."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ddptrain.structures import Detections

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
        """Boxes `[B, A, 4]` in input pixels, float32: expectation of each distribution around its point."""
        d = self.distances.float()
        bins = d.shape[-1]
        if bins > 1:
            d = d.softmax(-1) @ torch.arange(bins, device=d.device, dtype=d.dtype)
        else:
            d = d[..., 0]
        d = d * self.strides[:, None]
        return torch.cat([self.points - d[..., :2], self.points + d[..., 2:]], -1)


@torch.no_grad()
def detections(pred: DensePrediction, *, score_threshold: float, nms_iou: float, max_detections: int) -> list[Detections]:
    """The detections of each image, best first, boxes in input pixels.

    A point may report several classes. Ties keep the order of (point, class), so that the result is a function of
    the prediction alone. Boxes are as predicted and may leave the image.

    Args:
        pred: prediction for B images.
        score_threshold: scores at or below it are dropped, 0..1.
        nms_iou: of two boxes of one class with a higher IoU, the one with the lower score is dropped.
        max_detections: detections kept per image.

    Returns:
        B items.
    """
    scores, boxes = pred.logits.float().sigmoid(), pred.boxes()
    return [_suppress(s, b, score_threshold, nms_iou, max_detections) for s, b in zip(scores, boxes)]


def _suppress(scores: Tensor, boxes: Tensor, threshold: float, nms_iou: float, limit: int) -> Detections:
    point, label = (scores > threshold).nonzero(as_tuple=True)
    score = scores[point, label]
    score, order = score.sort(descending=True, stable=True)
    score, order = score[:MAX_CANDIDATES], order[:MAX_CANDIDATES]
    point, label = point[order], label[order]
    box = boxes[point]
    # positions are in order of score, so sorting what is kept restores it, ties included
    kept = batched_nms(box, score, label, nms_iou).sort().values[:limit]
    return Detections(box[kept], score[kept], label[kept])

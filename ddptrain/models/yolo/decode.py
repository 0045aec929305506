"""Dense prediction → detections: threshold, class-wise non-maximum suppression, the best so many."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ddptrain.structures import DensePrediction, Detections

MAX_CANDIDATES = 30_000
"""(box, class) pairs of one image that enter the suppression at most, the best ones."""


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

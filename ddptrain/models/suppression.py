"""Which of several boxes on one object stay: non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, nms

from ddptrain.config.detection_eval import DetectionEval
from ddptrain.structures import Detections


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, settings: DetectionEval) -> Detections:
    """The detections of one image that stay, best first, at most `settings.max_detections`.

    Args:
        boxes: float32 `[n, 4]`, best first.
        scores: float32 `[n]`, falling.
        labels: int64 `[n]`.
    """
    if settings.nms == "soft":
        return _soft(boxes, scores, labels, settings)
    if settings.nms_agnostic:
        kept = nms(boxes, scores, settings.nms_iou)
    else:
        by_class = nms_by_class if boxes.is_cuda else batched_nms
        kept = by_class(boxes, scores, labels, settings.nms_iou)
    # positions are in order of score, so sorting what is kept restores it, ties included
    kept = kept.sort().values[: settings.max_detections]
    return Detections(boxes[kept], scores[kept], labels[kept])


def nms_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, nms_iou: float) -> Tensor:
    """As `torchvision.ops.batched_nms`, which on a GPU takes a slow loop over the classes from 25 000 boxes on: the classes are
    moved apart, in float64, so that no digit of a box is lost."""
    if not len(boxes):
        return labels
    moved = boxes.double()
    extent = moved.amax() - moved.amin() + 1
    return nms(moved + (labels * extent)[:, None], scores.double(), nms_iou)


def _soft(boxes: Tensor, scores: Tensor, labels: Tensor, settings: DetectionEval) -> Detections:
    """Gaussian Soft-NMS (Bodla et al., arXiv 1704.04503): the best box stays and lowers the scores of those that overlap it,
    then the best of the rest, until nothing above the score threshold is left."""
    scores = scores.clone()
    kept, found = [], []
    for _ in range(min(settings.max_detections, len(scores))):
        best = scores.argmax()
        if scores[best] <= settings.score_threshold:
            break
        kept.append(best)
        found.append(scores[best].clone())
        decay = torch.exp(-box_iou(boxes[best][None], boxes)[0].square() / settings.soft_nms_sigma)
        rivals = torch.ones_like(labels, dtype=torch.bool) if settings.nms_agnostic else labels == labels[best]
        scores = torch.where(rivals, scores * decay, scores)
        scores[best] = -1
    if not kept:
        return Detections(boxes[:0], scores[:0], labels[:0])
    index = torch.stack(kept)
    return Detections(boxes[index], torch.stack(found), labels[index])

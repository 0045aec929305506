"""Which anchor points answer for which object: task-aligned assignment (TOOD, arXiv 2108.07755), and which for none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ddptrain.losses.boxes import areas, intersections, iou
from ddptrain.models.yolo.decode import DensePrediction

# (object, point) pairs looked at in one go: bounds the memory at some 0.3 GB with 900 objects and 34 000 points
_PAIRS = 1 << 23
# share of a predicted box that must lie in an ignore region for its anchor point to be left alone
IGNORE_OVERLAP = 0.5


@dataclass(slots=True)
class Assignment:
    """The anchor points of each of N objects, at most k of them; rows and columns without a point have `target` 0.

    Attributes:
        points: int64 `[N, k]`: row of the point in `[B * A]`, always valid.
        assigned: bool `[N, k]`: whether that point is the object's; no point is two objects'.
        target: float32 `[N, k]` in 0..1: what the score of the object's class should be there, 0 where not assigned.
    """

    points: Tensor
    assigned: Tensor
    target: Tensor


@torch.no_grad()
def assign(
    pred: DensePrediction,
    decoded: Tensor,
    boxes: Tensor,
    labels: Tensor,
    image: Tensor,
    *,
    topk: int,
    alpha: float,
    beta: float,
) -> Assignment:
    """Give each object the `topk` points inside it that are best by score^alpha * IoU^beta.

    Sides below the second-finest stride are enlarged to it for "inside", so that the smallest object has points to
    choose from. A point that several objects chose goes to the one with the highest IoU. No image looks at another.

    Args:
        pred: the prediction.
        decoded: float32 `[B, A, 4]`: its boxes.
        boxes, labels, image: objects `[N, 4]` in pixels, `[N]` class, `[N]` row of the batch.
    """
    a = decoded.shape[1]
    k = min(topk, a)
    points = torch.zeros(len(boxes), k, dtype=torch.int64, device=boxes.device)
    metric = torch.zeros(len(boxes), k, device=boxes.device)
    overlap = torch.zeros(len(boxes), k, device=boxes.device)
    grown = _enlarge(boxes, _least_side(pred.strides))
    step = max(1, _PAIRS // a)
    for s in (slice(i, i + step) for i in range(0, len(boxes), step)):
        inside = _contains(grown[s], pred.points)
        iou_all = iou(boxes[s, None], decoded[image[s]])
        score = pred.logits[image[s], :, labels[s]].float().sigmoid()
        align = torch.where(inside, score.pow(alpha) * iou_all.pow(beta), -1.0)
        metric[s], points[s] = align.topk(k, dim=1)
        overlap[s] = iou_all.gather(1, points[s])
    points += image[:, None] * a
    assigned = _resolve(points, overlap, metric >= 0, decoded.shape[0] * a)
    metric, overlap = metric.where(assigned, 0.0), overlap.where(assigned, 0.0)
    best = metric.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return Assignment(points, assigned, metric / best * overlap.amax(1, keepdim=True))


@torch.no_grad()
def in_ignore_regions(decoded: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """bool `[B, A]`: predicted boxes that lie with more than half of their area in one ignore region of their image.

    Args:
        decoded: float32 `[B, A, 4]`: predicted boxes.
        boxes, image: ignore regions `[K, 4]` in pixels and their rows of the batch `[K]`.
    """
    hit = torch.zeros(decoded.shape[:2], device=decoded.device)
    step = max(1, _PAIRS // decoded.shape[1])
    for s in (slice(i, i + step) for i in range(0, len(boxes), step)):
        own = decoded[image[s]]
        share = intersections(boxes[s, None], own) / areas(own).clamp_min(1e-7)
        hit.index_add_(0, image[s], (share > IGNORE_OVERLAP).float())
    return hit > 0


def _least_side(strides: Tensor) -> Tensor:
    """The second-finest of the levels' strides (the finest, when there is one level), without a host sync."""
    finest = strides.amin()
    coarser = torch.where(strides > finest, strides, torch.inf).amin()
    return torch.where(coarser.isinf(), finest, coarser)


def _enlarge(boxes: Tensor, side: Tensor) -> Tensor:
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = torch.maximum(boxes[:, 2:] - boxes[:, :2], side) / 2
    return torch.cat([centre - half, centre + half], 1)


def _contains(boxes: Tensor, points: Tensor) -> Tensor:
    """bool `[n, A]`: points on or inside boxes."""
    x, y = points[:, 0], points[:, 1]
    b = boxes[:, :, None]
    return (x >= b[:, 0]) & (y >= b[:, 1]) & (x <= b[:, 2]) & (y <= b[:, 3])


def _resolve(points: Tensor, overlap: Tensor, chosen: Tensor, total: int) -> Tensor:
    """`chosen` without the points that a better object (higher IoU, then lower row) has chosen too."""
    rows = torch.arange(len(points), device=points.device)[:, None].expand_as(points)
    best = overlap.new_full((total,), -1.0)
    best.scatter_reduce_(0, points.flatten(), torch.where(chosen, overlap, -1.0).flatten(), "amax")
    chosen = chosen & (overlap == best[points])
    first = rows.new_full((total,), len(points))
    first.scatter_reduce_(0, points.flatten(), torch.where(chosen, rows, len(points)).flatten(), "amin")
    return chosen & (rows == first[points])

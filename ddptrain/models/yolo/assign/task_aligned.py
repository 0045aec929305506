"""Task-aligned assignment (TOOD, arXiv 2108.07755)."""

from __future__ import annotations

import torch
from torch import Tensor

from ddptrain.models.yolo.assign.base import Assignment, Objects, chunks, contains, resolve
from ddptrain.models.yolo.prediction import Alike, Prediction


def task_aligned(
    pred: Prediction, decoded: Tensor, objects: Objects, alike: Alike, *, topk: int, alpha: float, beta: float
) -> Assignment:
    """Give each object the `topk` points inside it that are best by score^alpha * IoU^beta; target and weight of a point are
    this value, scaled so that an object's largest is its largest IoU.

    Sides below the second-finest stride are enlarged to it for "inside", so that the smallest object has points to
    choose from. A point that several objects chose goes to the one with the highest IoU. No image looks at another.

    Args:
        decoded: float32 `[B, P, 4]`: the predicted boxes.
        alike: the IoU, or what stands for it.
    """
    boxes, labels, image = objects
    p = decoded.shape[1]
    k = min(topk, p)
    points = torch.zeros(len(boxes), k, dtype=torch.int64, device=boxes.device)
    metric = torch.zeros(len(boxes), k, device=boxes.device)
    overlap = torch.zeros(len(boxes), k, device=boxes.device)
    grown = _enlarge(boxes, _least_side(pred.strides))
    for s in chunks(len(boxes), p):
        inside = contains(grown[s], pred.points)
        similar = alike(boxes[s, None], decoded[image[s]])
        align = torch.where(inside, pred.scores_of(image[s], labels[s]).pow(alpha) * similar.pow(beta), -1.0)
        metric[s], points[s] = align.topk(k, dim=1)
        overlap[s] = similar.gather(1, points[s])
    points += image[:, None] * p
    assigned = resolve(points, overlap, metric >= 0, decoded.shape[0] * p)
    metric, overlap = metric.where(assigned, 0.0), overlap.where(assigned, 0.0)
    best = metric.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    target = metric / best * overlap.amax(1, keepdim=True)
    return Assignment(points, assigned, target, target)


def _least_side(strides: Tensor) -> Tensor:
    """The second-finest of the levels' strides (the finest, when there is one level), without a host sync."""
    finest = strides.amin()
    coarser = torch.where(strides > finest, strides, torch.inf).amin()
    return torch.where(coarser.isinf(), finest, coarser)


def _enlarge(boxes: Tensor, side: Tensor) -> Tensor:
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = torch.maximum(boxes[:, 2:] - boxes[:, :2], side) / 2
    return torch.cat([centre - half, centre + half], 1)

"""Simplified optimal transport assignment (SimOTA of YOLOX, arXiv 2107.08430)."""

from __future__ import annotations

import torch
from torch import Tensor

from ddptrain.models.yolo.assign.base import Assignment, Objects, chunks, contains, resolve
from ddptrain.models.yolo.prediction import Alike, Prediction

RADIUS = 2.5
"""Half the side, in strides, of the square around the centre of an object whose points are candidates."""
BOX_COST = 3.0
"""Weight of the cost of the box beside that of the classes."""
FAR = 1e5
"""Cost of a point that is not both inside the object and near its centre."""
_EPS = 1e-8


def simota(pred: Prediction, decoded: Tensor, objects: Objects, alike: Alike, annotated: Tensor, *, topk: int) -> Assignment:
    """Give each object as many points as the sum of its `topk` best IoUs says, at least one, those of the lowest cost.

    Candidates are the points inside the object or within 2.5 strides of its centre. The cost of a point is the binary cross
    entropy of its scores plus 3 times -log IoU, and 100 000 where it is not both. A point that several objects chose goes to
    the one with the lowest cost. The target of a point is its IoU, its weight 1.

    Args:
        decoded: float32 `[B, P, 4]`: the predicted boxes.
        alike: the IoU, or what stands for it.
        annotated: bool `[B, C]`: classes that count in the cost.
    """
    boxes, labels, image = objects
    p = decoded.shape[1]
    k = min(topk, p)
    points = torch.zeros(len(boxes), k, dtype=torch.int64, device=boxes.device)
    cost = torch.zeros(len(boxes), k, device=boxes.device)
    similar = torch.zeros(len(boxes), k, device=boxes.device)
    count = torch.zeros(len(boxes), 1, device=boxes.device)
    scores = pred.scores()
    absent = -(1 - scores).clamp_min(_EPS).log()  # of each class, where it is not
    none_of_all = (absent * annotated[:, None]).sum(-1)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    for s in chunks(len(boxes), p):
        inside = contains(boxes[s], pred.points)
        near = (pred.points - centre[s, None]).abs().amax(-1) < RADIUS * pred.strides
        overlap = torch.where(inside | near, alike(boxes[s, None], decoded[image[s]]), 0.0)
        own = scores[image[s], :, labels[s]]
        classes = none_of_all[image[s]] - absent[image[s], :, labels[s]] - own.clamp_min(_EPS).log()
        price = classes - BOX_COST * overlap.clamp_min(_EPS).log() + FAR * ~(inside & near)
        cost[s], points[s] = price.where(inside | near, torch.inf).topk(k, dim=1, largest=False)
        similar[s] = overlap.gather(1, points[s])
        count[s] = overlap.topk(k, dim=1).values.sum(1, keepdim=True)
    points += image[:, None] * p
    chosen = (torch.arange(k, device=boxes.device) < count.floor().clamp_min(1)) & cost.isfinite()
    assigned = resolve(points, -cost, chosen, decoded.shape[0] * p)
    return Assignment(points, assigned, similar * assigned, assigned.float())

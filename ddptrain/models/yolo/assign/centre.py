"""The fixed rule of FCOS (arXiv 1904.01355): points near the centre of an object, on the level of its size."""

from __future__ import annotations

import torch

from ddptrain.losses.boxes import areas
from ddptrain.models.yolo.assign.base import Assignment, Objects, chunks, resolve
from ddptrain.models.yolo.prediction import Prediction

RADIUS = 1.5
"""Half the side, in strides, of the square around the centre of an object that gives it points."""
REACH = 8.0
"""Distance to the farthest side of an object, in strides, from which on it belongs to the next level."""
_MOST = 18
"""Points within the radius, 9 a level, on the two levels whose ranges an object can reach into."""


def by_centre(pred: Prediction, objects: Objects, images: int) -> Assignment:
    """Give each object the points inside it within 1.5 strides of its centre whose farthest side is 4 to 8 strides away; on the
    finest level also nearer, on the coarsest farther.

    A point in several objects goes to the smallest. Target and weight of a point are its centre-ness (eq. 3), by which FCOS
    multiplies its scores and weighs its boxes. An object between the points gets none.
    """
    boxes, _, image = objects
    p = len(pred.points)
    k = min(_MOST, p)
    points = torch.zeros(len(boxes), k, dtype=torch.int64, device=boxes.device)
    value = torch.zeros(len(boxes), k, device=boxes.device)
    strides, finest, coarsest = pred.strides, pred.strides.amin(), pred.strides.amax()
    low = torch.where(strides > finest, REACH / 2 * strides, -torch.inf)
    high = torch.where(strides < coarsest, REACH * strides, torch.inf)
    for s in chunks(len(boxes), p):
        corner, end = (pred.points - boxes[s, None, :2]), (boxes[s, None, 2:] - pred.points)
        near = (corner - end).abs().amax(-1) < 2 * RADIUS * strides  # twice the distance from the centre
        farthest = torch.maximum(corner, end).amax(-1)
        chosen = near & (torch.minimum(corner, end).amin(-1) > 0) & (farthest >= low) & (farthest < high)
        sides = torch.minimum(corner, end) / torch.maximum(corner, end).clamp_min(1e-7)
        centreness = sides.clamp_min(0).prod(-1).sqrt()
        value[s], points[s] = centreness.where(chosen, -1.0).topk(k, dim=1)
    points += image[:, None] * p
    smallest = -areas(boxes)[:, None].expand_as(value)
    assigned = resolve(points, smallest, value > 0, images * p)
    target = value.where(assigned, 0.0)
    return Assignment(points, assigned, target, target)

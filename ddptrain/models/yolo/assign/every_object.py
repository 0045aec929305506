"""A point for objects that an assigner left without one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ddptrain.models.yolo.assign.base import Assignment, Objects
from ddptrain.models.yolo.prediction import Prediction


def give_each_a_point(got: Assignment, pred: Prediction, objects: Objects, images: int) -> Assignment:
    """Give each object of which no point learns anything the free point whose first box is nearest to it (in the Wasserstein
    distance of arXiv 2110.13389), with a target and a weight of 1.

    Objects that want the same point take it in turns of their rows, so the host waits for the device once a turn; only where
    an image has no free point left do objects stay without.
    """
    p = len(pred.points)
    lacking = got.without_point()
    got = replace(got, assigned=got.assigned & ~lacking[:, None])
    points, assigned, target, weight = (x.clone() for x in (got.points, got.assigned, got.target, got.weight))
    taken = got.places(images, p).view(-1)
    left = lacking.nonzero()[:, 0]
    while len(left):
        distance = _distance(objects.boxes[left], pred)
        distance = distance.masked_fill(taken.view(images, p)[objects.image[left]], torch.inf)
        nearest, point = distance.min(1)
        point = point + objects.image[left] * p
        first = left.new_full((images * p,), len(points)).scatter_reduce_(0, point, left, "amin")
        won = left[nearest.isfinite() & (first[point] == left)]
        if not len(won):
            break
        place = point[torch.isin(left, won)]
        points[won, 0], assigned[won, 0], target[won, 0], weight[won, 0] = place, True, 1.0, 1.0
        taken[place] = True
        left = left[~torch.isin(left, won)]
    return Assignment(points, assigned, target, weight)


def _distance(boxes: Tensor, pred: Prediction) -> Tensor:
    """float32 `[n, P]`: squared Wasserstein distance of boxes from the first boxes of all points."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    away = (centre[:, None] - pred.points).square().sum(-1)
    return away + (size[:, None] - pred.sizes()).square().sum(-1) / 4

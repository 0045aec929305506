"""The fixed rule of anchor-based heads: anchors of about the shape of an object, at its cell and the two nearest beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from ddptrain.models.yolo.assign.base import Assignment, Objects, resolve
from ddptrain.models.yolo.prediction import AnchorPrediction


def by_ratio(pred: AnchorPrediction, objects: Objects, images: int, *, limit: float, least: float | None = None) -> Assignment:
    """Give each object, on each level, the anchors of which neither side differs from its own by `limit` times or more, or with
    `least` those whose IoU with it, both about one centre, is above that, at the cell that holds its centre and at the nearest
    cell beside it in x and in y.

    An anchor that several objects want goes to the one whose shape is nearest to it. Target and weight are 1. An object to
    which no anchor is near enough gets none.
    """
    boxes, _, image = objects
    levels, per_point, _ = pred.anchors.shape
    size = boxes[:, 2:] - boxes[:, :2]
    ratio = size[:, None, None] / pred.anchors
    ratio = torch.maximum(ratio, 1 / ratio).amax(-1)  # [N, levels, anchors]
    place, valid = _cells((boxes[:, :2] + boxes[:, 2:]) / 2, pred, levels)
    anchor = torch.arange(per_point, device=boxes.device)
    points = image[:, None, None, None] * len(pred.points) + place[..., None] * per_point + anchor  # [N, levels, 3, anchors]
    near = ratio < limit if least is None else _shape_iou(size[:, None, None], pred.anchors) > least
    chosen = near[:, :, None] & valid[..., None]
    ratio = ratio[:, :, None].expand_as(points).flatten(1)
    assigned = resolve(points.flatten(1), -ratio, chosen.flatten(1), images * len(pred.points))
    return Assignment(points.flatten(1), assigned, assigned.float(), assigned.float())


def _shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU `[...]` of boxes of sizes `[..., 2]` about one centre."""
    shared = torch.minimum(a, b).prod(-1)
    return shared / (a.prod(-1) + b.prod(-1) - shared)


def _cells(centre: Tensor, pred: AnchorPrediction, levels: int) -> tuple[Tensor, Tensor]:
    """Numbers of the three cells of each object `[N, 2]` on each level, counted over all levels, int64 `[N, levels, 3]`, and
    whether they are on the grid. Computed on the device, without a wait for it."""
    per_point = pred.anchors.shape[1]
    stride = pred.strides.amin() * 2 ** torch.arange(levels, device=centre.device)
    own = pred.strides == stride[:, None]  # [levels, P]
    amount = own.sum(1) // per_point
    start = amount.cumsum(0) - amount
    last = torch.where(own[..., None], pred.points, 0).amax(1) / stride[:, None]  # centre of the last cell, in cells
    count = last.ceil().long()  # columns and rows, [levels, 2]
    at = centre[:, None] / stride[:, None]
    cell = at.floor().long().clamp_min(0).minimum(count - 1)  # [N, levels, 2]
    beside = cell + torch.where(at - cell < 0.5, -1, 1)
    x = torch.stack([cell[..., 0], beside[..., 0], cell[..., 0]], -1)
    y = torch.stack([cell[..., 1], cell[..., 1], beside[..., 1]], -1)
    valid = (x >= 0) & (y >= 0) & (x < count[:, :1]) & (y < count[:, 1:])
    number = start[:, None] + y * count[:, :1] + x
    return number.where(valid, 0), valid

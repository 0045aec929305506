"""Overlap of boxes `(x1, y1, x2, y2)`, pair by pair with broadcasting."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddptrain.config.detection_loss import BoxLoss
from ddptrain.structures import COCO_AREAS

_EPS = 1e-7


def areas(boxes: Tensor) -> Tensor:
    """Areas `[...]` of boxes `[..., 4]`; 0 for a box turned inside out."""
    return (boxes[..., 2] - boxes[..., 0]).clamp_min(0) * (boxes[..., 3] - boxes[..., 1]).clamp_min(0)


def by_size(boxes: Tensor, small: float, medium: float, large: float) -> Tensor:
    """For each of the boxes `[n, 4]` one of three values, by COCO's areas; float32 `[n]`."""
    size, (least, most) = areas(boxes), COCO_AREAS
    return torch.where(size < least, small, torch.where(size < most, medium, size.new_full((), large)))


def intersections(a: Tensor, b: Tensor) -> Tensor:
    """Areas `[...]` that `a` and `b` `[..., 4]` share."""
    w = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    h = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    return w.clamp_min(0) * h.clamp_min(0)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union `[...]` of `a` and `b` `[..., 4]`, in 0..1."""
    inter = intersections(a, b)
    return inter / (areas(a) + areas(b) - inter + _EPS)


def similarity(a: Tensor, b: Tensor, kind: BoxLoss, scale: float = 12.8) -> Tensor:
    """How alike boxes `a` and `b` `[..., 4]` are, 1 for the same box; `[...]`.

        iou    intersection over union
        giou   less what the enclosing box has beside their union, over its area (arXiv 1902.09630)
        diou   less (distance of the centres / diagonal of the enclosing box)² (arXiv 1911.08287)
        ciou   less alpha v, too: v measures the difference of the aspect ratios, and alpha = v / (1 - IoU + v) is taken as
               constant (ibid.)
        eiou   DIoU less the squared differences of the sides over those of the enclosing box (arXiv 2101.08158)
        nwd    exp(-W / scale) with the Wasserstein distance W, in pixels, of Gaussians in the boxes (arXiv 2110.13389)

    Args:
        scale: of `nwd`, in pixels, about the size of the objects.
    """
    offset = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    if kind == "nwd":
        sides = (a[..., 2:] - a[..., :2] - b[..., 2:] + b[..., :2]) / 2
        return (-(offset.square().sum(-1) + sides.square().sum(-1) + _EPS).sqrt() / scale).exp()
    inter = intersections(a, b)
    union = areas(a) + areas(b) - inter
    overlap = inter / (union + _EPS)
    if kind == "iou":
        return overlap
    enclosing = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    if kind == "giou":
        around = enclosing.prod(-1)
        return overlap - (around - union) / (around + _EPS)
    distance = offset.square().sum(-1) / (enclosing.square().sum(-1) + _EPS)
    if kind == "diou":
        return overlap - distance
    if kind == "eiou":
        sides = a[..., 2:] - a[..., :2] - b[..., 2:] + b[..., :2]
        return overlap - distance - (sides / (enclosing + _EPS)).square().sum(-1)
    v = 4 / math.pi**2 * (_aspect(a) - _aspect(b)).square()
    alpha = (v / (1 - overlap + v + _EPS)).detach()
    return overlap - distance - alpha * v


def _aspect(boxes: Tensor) -> Tensor:
    size = boxes[..., 2:] - boxes[..., :2]
    return torch.atan(size[..., 0] / size[..., 1].clamp_min(_EPS))

"""Overlap of boxes `(x1, y1, x2, y2)`, pair by pair with broadcasting."""

from __future__ import annotations

import math

import torch
from torch import Tensor

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


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU `[...]` of `a` and `b` `[..., 4]`, in -1.5..1 (Zheng et al., arXiv 1911.08287).

    IoU - (distance of the centres / diagonal of the enclosing box)² - alpha * v, where v measures the difference of
    the aspect ratios and alpha = v / (1 - IoU + v) is taken as constant.
    """
    inter = intersections(a, b)
    overlap = inter / (areas(a) + areas(b) - inter + _EPS)
    enclosing = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = enclosing.square().sum(-1) + _EPS
    offset = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    v = 4 / math.pi**2 * (_aspect(a) - _aspect(b)).square()
    alpha = (v / (1 - overlap + v + _EPS)).detach()
    return overlap - offset.square().sum(-1) / diagonal - alpha * v


def _aspect(boxes: Tensor) -> Tensor:
    size = boxes[..., 2:] - boxes[..., :2]
    return torch.atan(size[..., 0] / size[..., 1].clamp_min(_EPS))

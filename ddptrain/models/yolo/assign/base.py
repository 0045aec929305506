"""What all assigners share: what they take and give, and which of several objects gets a point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ddptrain.losses.boxes import areas, intersections

PAIRS = 1 << 23
"""(object, point) pairs looked at in one go: bounds the memory at some 0.3 GB with 900 objects and 34 000 points."""
IGNORE_OVERLAP = 0.5
"""Share of a predicted box that must lie in an ignore region for its point to be left alone."""


class Objects(NamedTuple):
    """The objects of a batch.

    Attributes:
        boxes: float32 `[N, 4]` in pixels.
        labels: int64 `[N]`.
        image: int64 `[N]`: row of the batch.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor


@dataclass(slots=True)
class Assignment:
    """The points of each of N objects, at most k of them; rows and columns without a point have `target` and `weight` 0.

    Attributes:
        points: int64 `[N, k]`: row of the point in `[B * P]`, always valid.
        assigned: bool `[N, k]`: whether that point is the object's; no point is two objects'.
        target: float32 `[N, k]` in 0..1: what the score of the object's class should be there.
        weight: float32 `[N, k]` in 0..1: weight of the point in the loss of the boxes; their sum is the normalizer.
    """

    points: Tensor
    assigned: Tensor
    target: Tensor
    weight: Tensor

    def without_point(self) -> Tensor:
        """bool `[N]`: objects of which no point learns anything."""
        return ~(self.weight > 0).any(1)

    def places(self, images: int, points: int) -> Tensor:
        """bool `[images, points]`: those that are an object's."""
        taken = torch.zeros(images * points, device=self.points.device)
        taken.index_add_(0, self.points.flatten(), self.assigned.flatten().float())
        return taken.view(images, points) > 0


def chunks(objects: int, points: int) -> Iterator[slice]:
    """Parts of the objects that are looked at in one go."""
    step = max(1, PAIRS // points)
    yield from (slice(i, i + step) for i in range(0, objects, step))


@torch.no_grad()
def in_ignore_regions(decoded: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """bool `[B, P]`: predicted boxes that lie with more than half of their area in one ignore region of their image.

    Args:
        decoded: float32 `[B, P, 4]`: predicted boxes.
        boxes, image: ignore regions `[K, 4]` in pixels and their rows of the batch `[K]`.
    """
    hit = torch.zeros(decoded.shape[:2], device=decoded.device)
    for s in chunks(len(boxes), decoded.shape[1]):
        own = decoded[image[s]]
        share = intersections(boxes[s, None], own) / areas(own).clamp_min(1e-7)
        hit.index_add_(0, image[s], (share > IGNORE_OVERLAP).float())
    return hit > 0


def contains(boxes: Tensor, points: Tensor) -> Tensor:
    """bool `[n, P]`: points on or inside boxes."""
    x, y = points[:, 0], points[:, 1]
    b = boxes[:, :, None]
    return (x >= b[:, 0]) & (y >= b[:, 1]) & (x <= b[:, 2]) & (y <= b[:, 3])


def resolve(points: Tensor, value: Tensor, chosen: Tensor, total: int) -> Tensor:
    """`chosen` `[N, k]` without the points that a better object (higher value, then lower row) has chosen too."""
    rows = torch.arange(len(points), device=points.device)[:, None].expand_as(points)
    best = value.new_full((total,), -torch.inf)
    best.scatter_reduce_(0, points.flatten(), torch.where(chosen, value, -torch.inf).flatten(), "amax")
    chosen = chosen & (value == best[points])
    first = rows.new_full((total,), len(points))
    first.scatter_reduce_(0, points.flatten(), torch.where(chosen, rows, len(points)).flatten(), "amin")
    return chosen & (rows == first[points])

"""What the heads predict, at P places of each image: the anchor points, or each anchor of each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

PRIOR = 6.0
"""Sides of the box that an anchor-free head starts from at a point, in strides."""


class DensePrediction(NamedTuple):
    """The prediction of an anchor-free dense head for P anchor points of each image.

    Attributes:
        logits: `[B, P, classes]`, before the sigmoid.
        distances: `[B, P, 4, bins]`: logits of the distribution over the distance, in strides, from the anchor point to
            the left, top, right and bottom side (Generalized Focal Loss, arXiv 2006.04388); `bins == 1` means that the
            single value is the distance itself.
        points: float32 `[P, 2]`: anchor points (x, y) in input pixels.
        strides: float32 `[P]`: stride of the level of each point, in input pixels.
    """

    logits: Tensor
    distances: Tensor
    points: Tensor
    strides: Tensor

    def boxes(self) -> Tensor:
        """Boxes `[B, P, 4]` in input pixels, float32 also under autocast: expectation of each distribution around its point."""
        d = self.distances.float()
        bins = d.shape[-1]
        if bins > 1:
            with torch.autocast(d.device.type, enabled=False):
                d = d.softmax(-1) @ torch.arange(bins, device=d.device, dtype=d.dtype)
        else:
            d = d[..., 0]
        d = d * self.strides[:, None]
        return torch.cat([self.points - d[..., :2], self.points + d[..., 2:]], -1)

    def float(self) -> DensePrediction:
        return self._replace(logits=self.logits.float(), distances=self.distances.float())

    def scores(self) -> Tensor:
        """float32 `[B, P, classes]` in 0..1."""
        return self.logits.float().sigmoid()

    def scores_of(self, image: Tensor, labels: Tensor) -> Tensor:
        """float32 `[n, P]`: scores of some images for a class each; both int64 `[n]`."""
        return self.logits[image, :, labels].float().sigmoid()

    def at(self, row: Tensor) -> DensePrediction:
        """The distances at some places of the batch, int64 `[n]` in `[B * P]`, as if of one image; all of the logits."""
        point, distances = row % len(self.points), self.distances.flatten(0, 1).index_select(0, row)
        return self._replace(distances=distances[None], points=self.points[point], strides=self.strides[point])

    def sizes(self) -> Tensor:
        """float32 `[P, 2]`: width and height that a box has at first, in pixels."""
        return (PRIOR * self.strides)[:, None].expand(-1, 2)


Prediction = DensePrediction
Alike = Callable[[Tensor, Tensor], Tensor]
"""How alike boxes `[..., 4]` are, in 0..1."""

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


class AnchorPrediction(NamedTuple):
    """The prediction of an anchor-based head for P = points x anchors places of each image, the anchors of a point one after
    the other.

    Attributes:
        logits: `[B, P, classes]`, before the sigmoid: which class an object has, if there is one.
        objectness: `[B, P]`, before the sigmoid: whether there is one, and how well its box fits.
        offsets: `[B, P, 4]`: centre and size, before the sigmoid.
        points: float32 `[P, 2]`: centres of the cells (x, y) in input pixels.
        strides: float32 `[P]`: stride of the level of each place, in input pixels.
        shapes: float32 `[P, 2]`: width and height of the anchor of each place, in input pixels.
        anchors: float32 `[levels, anchors, 2]`: the same of each level, finest first.
    """

    logits: Tensor
    objectness: Tensor
    offsets: Tensor
    points: Tensor
    strides: Tensor
    shapes: Tensor
    anchors: Tensor

    def boxes(self) -> Tensor:
        """Boxes `[B, P, 4]` in input pixels, float32: centres up to a stride from the cell's in x and y, sides up to four times
        the anchor's."""
        part = 2 * self.offsets.float().sigmoid()
        centre = self.points + (part[..., :2] - 1) * self.strides[:, None]
        half = part[..., 2:].square() * self.shapes / 2
        return torch.cat([centre - half, centre + half], -1)

    def float(self) -> AnchorPrediction:
        return self._replace(logits=self.logits.float(), objectness=self.objectness.float(), offsets=self.offsets.float())

    def scores(self) -> Tensor:
        """float32 `[B, P, classes]` in 0..1."""
        return self.logits.float().sigmoid() * self.objectness.float().sigmoid()[..., None]

    def scores_of(self, image: Tensor, labels: Tensor) -> Tensor:
        """float32 `[n, P]`: scores of some images for a class each; both int64 `[n]`."""
        return self.logits[image, :, labels].float().sigmoid() * self.objectness[image].float().sigmoid()

    def at(self, row: Tensor) -> AnchorPrediction:
        """The offsets at some places of the batch, int64 `[n]` in `[B * P]`, as if of one image; all of the scores."""
        point, offsets = row % len(self.points), self.offsets.flatten(0, 1).index_select(0, row)
        return self._replace(
            offsets=offsets[None], points=self.points[point], strides=self.strides[point], shapes=self.shapes[point]
        )

    def sizes(self) -> Tensor:
        """float32 `[P, 2]`: width and height that a box has at first, in pixels."""
        return self.shapes


class DualPrediction(NamedTuple):
    """The predictions of both branches of a dual head, see `heads.dual`."""

    many: DensePrediction
    one: DensePrediction


Prediction = DensePrediction | AnchorPrediction
Alike = Callable[[Tensor, Tensor], Tensor]
"""How alike boxes `[..., 4]` are, in 0..1."""

"""Predictions and targets of the loss tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ddptrain.models.yolo.prediction import DensePrediction


class Scenes:
    """Random predictions on a real grid of anchor points, and random targets."""

    def __init__(self, side: int = 128, strides: tuple[int, ...] = (8, 16, 32), classes: int = 4) -> None:
        self.side, self.strides, self.classes = side, strides, classes

    def prediction(self, images: int, seed: int, bins: int = 16) -> DensePrediction:
        g = torch.Generator().manual_seed(seed)
        points, strides = [], []
        for s in self.strides:
            c = (torch.arange(self.side // s) + 0.5) * s
            points.append(torch.cartesian_prod(c, c).flip(1))
            strides.append(torch.full((len(c) ** 2,), float(s)))
        a = sum(map(len, points))
        logits = torch.randn(images, a, self.classes, generator=g) - 2
        distances = torch.randn(images, a, 4, bins, generator=g)
        if bins == 1:
            distances = distances.abs() * 2
        return DensePrediction(logits.requires_grad_(), distances.requires_grad_(), torch.cat(points), torch.cat(strides))

    def targets(self, counts: list[int], seed: int, ignore: list[int] | None = None) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(seed)

        def boxes(n: int) -> Tensor:
            corner = torch.rand(n, 2, generator=g) * self.side * 0.7
            size = 2 + torch.rand(n, 2, generator=g) ** 2 * self.side * 0.6
            return torch.cat([corner, (corner + size).clamp_max(self.side)], 1)

        def rows(counts: list[int]) -> Tensor:
            return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))

        ignore = ignore or [0] * len(counts)
        return {
            "boxes": boxes(sum(counts)),
            "labels": torch.randint(0, self.classes, (sum(counts),), generator=g),
            "image": rows(counts),
            "ignore_boxes": boxes(sum(ignore)),
            "ignore_image": rows(ignore),
            "annotated": torch.ones(len(counts), self.classes, dtype=torch.bool),
        }

    @staticmethod
    def only(targets: dict[str, Tensor], i: int) -> dict[str, Tensor]:
        """The targets of image `i` alone."""
        own, ign = targets["image"] == i, targets["ignore_image"] == i
        return {
            "boxes": targets["boxes"][own],
            "labels": targets["labels"][own],
            "image": torch.zeros_like(targets["image"][own]),
            "ignore_boxes": targets["ignore_boxes"][ign],
            "ignore_image": torch.zeros_like(targets["ignore_image"][ign]),
            "annotated": targets["annotated"][i : i + 1],
        }


@pytest.fixture
def scenes() -> Any:
    return Scenes()

"""Decoupled anchor-free head: one branch for classes, one for the distances to the box sides."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddptrain.models.class_layers import Layout
from ddptrain.models.norms import Norm
from ddptrain.models.yolo.blocks import ConvNormAct
from ddptrain.models.yolo.prediction import PRIOR, DensePrediction

_START = PRIOR / 2  # distance of the first boxes' sides from their anchor points, in strides
_OBJECTS = 5.0  # objects of one image that the first scores expect


class DecoupledHead(nn.Module):
    """Per level two layers and an output for classes (depthwise separable, arXiv 1704.04861, as classes need
    context more than precision), and two 3x3 layers and an output for distances (arXiv 2006.04388).

    Args:
        channels: channels of the levels, finest first.
        strides: strides of the levels.
        reg_max: bins per distance; 1 predicts the distance itself, kept positive by a softplus.
        width: factor on the channels of both branches, rounded to a multiple of 8.
        image_size: nominal side of the input in pixels, for the prior of the scores.
    """

    per_point = 1

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        num_classes: int,
        reg_max: int,
        norm: Norm,
        image_size: int,
        width: float,
    ) -> None:
        super().__init__()
        self.strides, self.num_classes, self.reg_max, self.image_size = strides, num_classes, reg_max, image_size
        usual = min(channels[0], 64), max(channels[0], min(num_classes, 128) // 8 * 8)
        box, cls = (max(round(c * width / 8), 1) * 8 for c in usual)
        self.classes = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(c, c, 3, norm, groups=c),
                ConvNormAct(c, cls, 1, norm),
                ConvNormAct(cls, cls, 3, norm, groups=cls),
                ConvNormAct(cls, cls, 1, norm),
            )
            for c in channels
        )
        self.logits = nn.ModuleList(nn.Conv2d(cls, num_classes, 1) for _ in channels)
        self.sides = nn.ModuleList(
            nn.Sequential(ConvNormAct(c, box, 3, norm), ConvNormAct(box, box, 3, norm)) for c in channels
        )
        self.distances = nn.ModuleList(nn.Conv2d(box, 4 * reg_max, 1) for _ in channels)

    def class_layers(self) -> dict[str, Layout]:
        return {f"logits.{i}": Layout() for i in range(len(self.logits))}

    def longest(self) -> list[int | None]:
        """Side in pixels of the largest box of each level; None for no limit."""
        # a distribution over the distance to each side ends at (reg_max - 1) strides
        return [2 * (self.reg_max - 1) * s if self.reg_max > 1 else None for s in self.strides]

    @torch.no_grad()
    def init_outputs(self) -> None:
        """Set the outputs' biases: scores to the prior of an object (arXiv 1708.02002), boxes to a sensible size."""
        levels: Any = zip(self.strides, self.logits, self.distances)
        for stride, logits, distances in levels:
            # _OBJECTS objects, shared by the classes and by all points of the level
            prior = min(_OBJECTS / self.num_classes / (self.image_size / stride) ** 2, 0.5)
            nn.init.normal_(logits.weight, std=0.01)
            nn.init.constant_(logits.bias, math.log(prior / (1 - prior)))
            nn.init.normal_(distances.weight, std=0.01)
            if self.reg_max > 1:
                # a geometric distribution over the bins, with its mean at _START
                slope = -math.log1p(1 / _START)
                distances.bias.copy_((slope * torch.arange(self.reg_max)).repeat(4))
            else:
                nn.init.constant_(distances.bias, math.log(math.expm1(_START)))

    def forward(self, maps: list[Tensor]) -> DensePrediction:
        """Maps `[B, channels[i], H_i, W_i]`, finest first → the prediction, levels one after the other."""
        logits, distances, points, strides = [], [], [], []
        for i, (x, stride) in enumerate(zip(maps, self.strides)):
            b, _, h, w = x.shape
            scores, sides = self.logits[i](self.classes[i](x)), self.distances[i](self.sides[i](x))
            logits.append(scores.permute(0, 2, 3, 1).reshape(b, h * w, self.num_classes))
            distances.append(sides.permute(0, 2, 3, 1).reshape(b, h * w, 4, self.reg_max))
            ys, xs = (((torch.arange(n, device=x.device) + 0.5) * stride) for n in (h, w))
            points.append(torch.stack([xs.repeat(h), ys.repeat_interleave(w)], -1))
            strides.append(torch.full((h * w,), float(stride), device=x.device))
        d = torch.cat(distances, 1)
        if self.reg_max == 1:
            d = F.softplus(d)
        return DensePrediction(torch.cat(logits, 1), d, torch.cat(points), torch.cat(strides))

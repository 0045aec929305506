"""Anchor-based head: at each cell, for each of some anchor shapes, whether there is an object, its class and its box."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ddptrain.models.class_layers import Layout
from ddptrain.models.yolo.prediction import AnchorPrediction

_OBJECTS = 8.0  # objects of one image that the first scores expect on each level
_CLASSES = 0.6  # classes that an object has at first


class AnchorHead(nn.Module):
    """A 1x1 convolution on each level, whose outputs are, anchor by anchor, four offsets, the objectness and the classes.

    Args:
        channels: channels of the levels, finest first.
        strides: strides of the levels.
        anchors: `[levels, anchors, 2]`: width and height in input pixels.
        image_size: nominal side of the input in pixels, for the prior of the objectness.
        fixed: the anchors are the config's; else they are kept in checkpoints.
    """

    anchors: Tensor

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        num_classes: int,
        anchors: Any,
        image_size: int,
        fixed: bool,
    ) -> None:
        super().__init__()
        self.strides, self.num_classes, self.image_size = strides, num_classes, image_size
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32), persistent=not fixed)
        self.per_point = self.anchors.shape[1]
        self.outputs = nn.ModuleList(nn.Conv2d(c, self.per_point * (5 + num_classes), 1) for c in channels)

    @torch.no_grad()
    def init_outputs(self) -> None:
        """Set the outputs' biases: objectness to the prior of an object (arXiv 1708.02002), boxes to the anchors."""
        levels: Any = zip(self.strides, self.outputs)
        for stride, output in levels:
            objects = min(_OBJECTS / self.per_point / (self.image_size / stride) ** 2, 0.5)
            classes = min(_CLASSES / self.num_classes, 0.5)
            nn.init.normal_(output.weight, std=0.01)
            nn.init.zeros_(output.bias)
            bias = output.bias.view(self.per_point, -1)
            bias[:, 4] = math.log(objects / (1 - objects))
            bias[:, 5:] = math.log(classes / (1 - classes))

    def forward(self, maps: list[Tensor]) -> AnchorPrediction:
        """Maps `[B, channels[i], H_i, W_i]`, finest first → the prediction, levels one after the other."""
        outputs, points, strides, shapes = [], [], [], []
        n = self.per_point
        for x, stride, output, anchors in zip(maps, self.strides, self.outputs, self.anchors):
            b, _, h, w = x.shape
            out = output(x).view(b, n, 5 + self.num_classes, h, w)
            outputs.append(out.permute(0, 3, 4, 1, 2).reshape(b, h * w * n, 5 + self.num_classes))
            ys, xs = (((torch.arange(m, device=x.device) + 0.5) * stride) for m in (h, w))
            points.append(torch.stack([xs.repeat(h), ys.repeat_interleave(w)], -1).repeat_interleave(n, 0))
            strides.append(torch.full((h * w * n,), float(stride), device=x.device))
            shapes.append(anchors.repeat(h * w, 1))
        offsets, objectness, logits = torch.cat(outputs, 1).split([4, 1, self.num_classes], -1)
        return AnchorPrediction(
            logits, objectness[..., 0], offsets, torch.cat(points), torch.cat(strides), torch.cat(shapes), self.anchors
        )

    def class_layers(self) -> dict[str, Layout]:
        return {f"outputs.{i}": Layout(groups=self.per_point, before=5) for i in range(len(self.outputs))}

    def longest(self) -> list[int | None]:
        """Side in pixels of the largest box of each level."""
        return [int(4 * side) for side in self.anchors.amax((1, 2)).tolist()]

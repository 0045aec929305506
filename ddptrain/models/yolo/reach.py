"""What the points of each level of the detector see, and how large a box they can predict."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import nn

from ddptrain.models.yolo.blocks import ConvNormAct

_FARTHEST = 4096  # pixels to look at


class Level(NamedTuple):
    """A level of the head.

    Attributes:
        stride: pixels between its points.
        field: side of the square of pixels that a score depends on, the receptive field.
        longest: side in pixels of the largest box that it can predict; None for no limit.
        beyond: the field reaches beyond what was looked at, so that `field` is the least that it can be.
    """

    stride: int
    field: int
    longest: int | None
    beyond: bool = False


@torch.no_grad()
def levels(model: nn.Module, channels: int) -> list[Level]:
    """The levels, finest first, of a `Yolo` with the package's own backbone, for images of so many channels.

    The field is measured: with weights that are all positive and layers that are all linear, a score has a gradient at exactly
    those pixels that it depends on. A strip of the picture is enough, since all layers treat height and width alike.
    """
    linear: Any = copy.deepcopy(model).cpu().double().eval()
    for module in list(linear.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, ConvNormAct):
            module.norm, module.act = nn.Identity(), nn.Identity()
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    strides = linear.head.strides
    with torch.enable_grad():
        strip = torch.zeros(1, channels, max(strides), _FARTHEST, dtype=torch.float64, requires_grad=True)
        logits = linear(strip).logits[0, :, 0]
        out, first = [], 0
        for stride, longest in zip(strides, linear.head.longest()):
            rows, columns, places = max(strides) // stride, _FARTHEST // stride, linear.head.per_point
            place = first + ((rows // 2) * columns + columns // 2) * places
            (gradient,) = torch.autograd.grad(logits[place], strip, retain_graph=True)
            seen = gradient.abs().amax((0, 1, 2)) > 0
            out.append(Level(stride, int(seen.sum()), longest, beyond=bool(seen[0] | seen[-1])))
            first += rows * columns * places
    return out

"""Path aggregation: features of all strides are merged from coarse to fine and back (PANet, arXiv 1803.01534)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ddptrain.models.yolo.blocks import ConvNormAct, CspStage, Norm


class PathAggregation(nn.Module):
    """Feature pyramid (arXiv 1612.03144) with a second, bottom-up path; CSP stages merge.

    Args:
        in_channels: channels of the feature maps, finest first.
        channels: channels of the outputs, finest first.
        depth: bottlenecks of each merging stage.
    """

    def __init__(self, in_channels: tuple[int, ...], channels: tuple[int, ...], depth: int, norm: Norm) -> None:
        super().__init__()
        # features of a foreign backbone come in any width
        self.lateral = nn.ModuleList(
            nn.Identity() if a == b else ConvNormAct(a, b, 1, norm) for a, b in zip(in_channels, channels)
        )
        pairs = list(pairwise(channels))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top_down = nn.ModuleList(CspStage(f + c, f, depth, norm, shortcut=False) for f, c in pairs)
        self.down = nn.ModuleList(ConvNormAct(f, f, 3, norm, stride=2) for f, _ in pairs)
        self.bottom_up = nn.ModuleList(CspStage(f + c, c, depth, norm, shortcut=False) for f, c in pairs)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps `[B, in_channels[i], H_i, W_i]`, each half the size of the one before → `[B, channels[i], H_i, W_i]`."""
        maps = [lateral(x) for lateral, x in zip(self.lateral, features)]
        for i in reversed(range(len(maps) - 1)):
            maps[i] = self.top_down[i](torch.cat([self.up(maps[i + 1]), maps[i]], 1))
        for i in range(len(maps) - 1):
            maps[i + 1] = self.bottom_up[i](torch.cat([self.down[i](maps[i]), maps[i + 1]], 1))
        return maps

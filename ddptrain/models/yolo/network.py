"""The package's own detector: backbone, neck and head."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddptrain.config import YoloConfig
from ddptrain.config.yolo import STRIDES
from ddptrain.models.class_layers import Layout
from ddptrain.models.torchvision_backbone import TorchvisionBackbone
from ddptrain.models.yolo.anchors import Anchors
from ddptrain.models.yolo.blocks import ConvNormAct, CspStage, Norm, PyramidPool, scale_to_unit_variance, set_activation
from ddptrain.models.yolo.heads.build import build_head
from ddptrain.models.yolo.heads.dual import DualHead
from ddptrain.models.yolo.prediction import DualPrediction, Prediction


@dataclass(frozen=True)
class Size:
    """Depth and width of one size.

    Attributes:
        widths: channels at strides 2, 4, 8, 16, 32, 64.
        depths: bottlenecks of the backbone's stages at strides 4, 8, 16, 32, 64.
        neck_depth: bottlenecks of each stage of the neck.
    """

    widths: tuple[int, int, int, int, int, int]
    depths: tuple[int, int, int, int, int]
    neck_depth: int

    def channels(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        """Channels at some strides."""
        widths = dict(zip((2, *STRIDES), self.widths))
        return tuple(widths[s] for s in strides)


SIZES = {
    "n": Size((16, 32, 64, 128, 256, 256), (1, 2, 2, 1, 1), 1),
    "s": Size((32, 64, 128, 256, 512, 512), (1, 2, 2, 1, 1), 1),
    "m": Size((48, 96, 192, 384, 576, 576), (2, 4, 4, 2, 2), 2),
    "l": Size((64, 128, 256, 512, 512, 512), (3, 6, 6, 3, 3), 3),
    "x": Size((80, 160, 320, 640, 640, 640), (3, 6, 6, 3, 3), 3),
}


class CspBackbone(nn.Module):
    """The own backbone: a stem, then per stride a 3x3 convolution of stride 2 and a CSP stage, pooling at the end.

    It ends at the coarsest of `strides`: with (4, 8, 16) there is no stage of stride 32.
    """

    def __init__(self, config: YoloConfig) -> None:
        super().__init__()
        size, strides, in_channels, norm = SIZES[config.size], config.strides, config.in_channels, config.norm
        self.strides = strides
        w = dict(zip((2, *STRIDES), size.widths))
        self.channels = size.channels(strides)
        added = max(in_channels - 3, 0) if config.fusion == "add" else 0
        self.stem = ConvNormAct(in_channels - added, w[2], 3, norm, stride=2)
        self.added_stem = ConvNormAct(added, w[2], 3, norm, stride=2) if added else None
        self.stages = nn.ModuleDict()
        for stride, depth in zip(STRIDES, size.depths):
            if stride <= max(strides):
                layers: list[nn.Module] = [
                    ConvNormAct(w[stride // 2], w[stride], 3, norm, stride=2),
                    CspStage(w[stride], w[stride], depth, norm, shortcut=True),
                ]
                if stride == max(strides):
                    layers.append(PyramidPool(w[stride], norm))
                self.stages[str(stride)] = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `[B, C, H, W]` → one map `[B, channels[i], H / strides[i], W / strides[i]]` per stride."""
        if self.added_stem is None:
            x = self.stem(images)
        else:
            x = self.stem(images[:, :3]) + self.added_stem(images[:, 3:])
        out = []
        for stride, stage in self.stages.items():
            x = stage(x)
            if int(stride) in self.strides:
                out.append(x)
        return out


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


class Yolo(nn.Module):
    """One-stage detector.

    Raises:
        UserError: the torchvision backbone is unknown or unfit, or its weights are not available.
    """

    def __init__(self, config: YoloConfig, num_classes: int, image_size: int = 640, anchors: Anchors | None = None) -> None:
        """
        Args:
            image_size: nominal side of the input in pixels; only the prior of the first scores depends on it.
            anchors: of an anchor-based head whose config has none; None for those that go with the strides.
        """
        super().__init__()
        size, strides, norm = SIZES[config.size], config.strides, config.norm
        self.backbone: CspBackbone | TorchvisionBackbone
        if config.backbone is None:
            self.backbone = CspBackbone(config)
        else:
            self.backbone = TorchvisionBackbone(
                config.backbone, strides, config.in_channels, norm, config.pretrained, config.fusion
            )
        channels = size.channels(strides)
        self.neck = PathAggregation(self.backbone.channels, channels, size.neck_depth, norm)
        self.head = build_head(config, channels, num_classes, image_size, anchors)
        set_activation(self, config.activation)
        if norm in ("frozen", "none"):
            scale_to_unit_variance(self, config.in_channels)
        self.head.init_outputs()

    def forward(self, images: Tensor, both: bool = False) -> Prediction | DualPrediction:
        """The prediction, of a dual head that of the branch that is used; in training, or with `both`, of both.

        Images float `[B, in_channels, H, W]` in 0..1, H and W multiples of 32; for a coarsest stride of 64 they are
        enlarged by zeros on the right and below where they are no multiples of 64."""
        beyond = [-side % self.head.strides[-1] for side in images.shape[2:]]
        if any(beyond):
            images = F.pad(images, (0, beyond[1], 0, beyond[0]))
        maps = self.neck(self.backbone(images))
        return self.head(maps, both) if isinstance(self.head, DualHead) else self.head(maps)

    def class_layers(self) -> dict[str, Layout]:
        return {f"head.{name}": layout for name, layout in self.head.class_layers().items()}

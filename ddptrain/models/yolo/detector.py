"""The package's own detector: backbone, neck, head."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ddptrain.models.yolo.backbone import SIZES, CspBackbone, Fusion, TorchvisionBackbone
from ddptrain.models.yolo.blocks import Norm, scale_to_unit_variance
from ddptrain.models.yolo.head import DecoupledHead
from ddptrain.models.yolo.neck import PathAggregation
from ddptrain.structures import DensePrediction


class Yolo(nn.Module):
    """Anchor-free one-stage detector.

    Args:
        num_classes: classes, >= 1.
        size: depth and width of backbone, neck and head.
        strides: strides of the levels: (8, 16, 32), (4, 8, 16) or (4, 8, 16, 32); the backbone ends at the last.
        in_channels: channels of the image.
        norm: kind of the norm layers, see `YoloConfig`.
        reg_max: bins of the distribution over each box side; 1 predicts the distance itself.
        backbone: a torchvision classification model in the place of the own backbone.
        pretrained: start that backbone from its published weights.
        image_size: nominal side of the input in pixels; only the prior of the first scores depends on it.
        fusion: `add` gives the channels behind the first three a stem of their own, whose output is added.

    Raises:
        UserError: the torchvision backbone is unknown, unfit or its weights are not to be had.
    """

    def __init__(
        self,
        num_classes: int,
        size: Literal["n", "s", "m", "l"] = "n",
        strides: tuple[int, ...] = (8, 16, 32),
        in_channels: int = 3,
        norm: Norm = "batch",
        reg_max: int = 16,
        backbone: str | None = None,
        pretrained: bool = False,
        image_size: int = 640,
        fusion: Fusion = "early",
    ) -> None:
        super().__init__()
        dims = SIZES[size]
        own = CspBackbone(dims, strides, in_channels, norm, fusion) if backbone is None else None
        self.backbone = own or TorchvisionBackbone(str(backbone), strides, in_channels, norm, pretrained, fusion)
        channels = tuple(w for s, w in zip((2, 4, 8, 16, 32), dims.widths) if s in strides)
        self.neck = PathAggregation(self.backbone.channels, channels, dims.neck_depth, norm)
        self.head = DecoupledHead(channels, strides, num_classes, reg_max, norm, image_size)
        if norm in ("frozen", "none"):
            scale_to_unit_variance(self, in_channels)
        self.head.init_outputs()

    def forward(self, images: Tensor) -> DensePrediction:
        """Images float `[B, in_channels, H, W]` in 0..1, H and W multiples of the coarsest stride."""
        return self.head(self.neck(self.backbone(images)))

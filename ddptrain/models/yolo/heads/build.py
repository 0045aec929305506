"""The head that a config names."""

from __future__ import annotations

from ddptrain.config import YoloConfig
from ddptrain.models.yolo.anchors import Anchors, default_anchors
from ddptrain.models.yolo.heads.anchor_based import AnchorHead
from ddptrain.models.yolo.heads.anchor_free import DecoupledHead
from ddptrain.models.yolo.heads.dual import DualHead


def build_head(
    config: YoloConfig, channels: tuple[int, ...], num_classes: int, image_size: int, anchors: Anchors | None
) -> DecoupledHead | AnchorHead | DualHead:
    """
    Args:
        channels: of the levels, finest first.
        anchors: see `Yolo`.
    """
    if config.head == "anchor_based":
        shapes = config.anchors or anchors or default_anchors(config.strides)
        return AnchorHead(channels, config.strides, num_classes, shapes, image_size, fixed=config.anchors is not None)

    def free() -> DecoupledHead:
        return DecoupledHead(channels, config.strides, num_classes, config.reg_max, config.norm, image_size, config.head_width)

    return DualHead(free(), free()) if config.head == "dual" else free()

"""Every network by its name in the config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ddptrain.config import TorchvisionConfig, YoloConfig
from ddptrain.config.model import TORCHVISION_DETECTORS
from ddptrain.models.torchvision_detectors import TorchvisionDetector
from ddptrain.models.yolo.detector import Yolo


def _yolo(config: YoloConfig, num_classes: int, image_size: int) -> nn.Module:
    return Yolo(
        num_classes,
        size=config.size,
        strides=config.strides,
        in_channels=config.in_channels,
        fusion=config.fusion,
        norm=config.norm,
        reg_max=config.reg_max,
        backbone=config.backbone,
        pretrained=config.pretrained,
        image_size=image_size,
    )


def _torchvision(config: TorchvisionConfig, num_classes: int, image_size: int) -> nn.Module:
    return TorchvisionDetector(config.name, num_classes, config.pretrained, config.pretrained_backbone)


MODELS: dict[str, Callable[[Any, int, int], nn.Module]] = {
    "yolo": _yolo,
    **dict.fromkeys(TORCHVISION_DETECTORS, _torchvision),
}


def build_model(config: YoloConfig | TorchvisionConfig, num_classes: int, image_size: int) -> nn.Module:
    """The network of a run, on the CPU, from torch's current random state.

    Args:
        config: the config's `model` section.
        num_classes: classes of the run, >= 1.
        image_size: side of the square input in pixels.

    Returns:
        A `Yolo`, whose forward gives a `DensePrediction`, or a `TorchvisionDetector`.
    """
    return MODELS[config.name](config, num_classes, image_size)

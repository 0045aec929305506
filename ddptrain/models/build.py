"""Every detector by its name in the config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ddptrain.config.detection import TORCHVISION_DETECTORS
from ddptrain.models.detector import Detector, DetectorSettings
from ddptrain.models.torchvision_detectors import TorchvisionDetector
from ddptrain.models.yolo.detector import YoloDetector

DETECTORS: dict[str, Callable[[Any, DetectorSettings], Detector]] = {
    "yolo": YoloDetector,
    **dict.fromkeys(TORCHVISION_DETECTORS, TorchvisionDetector),
}

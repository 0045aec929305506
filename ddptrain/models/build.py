"""Every detector and segmenter by its name in the config; classifiers stand in `classifiers.CLASSIFIERS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ddptrain.config.detection import TORCHVISION_DETECTORS
from ddptrain.config.segmentation import TORCHVISION_SEGMENTERS
from ddptrain.models.detector import Detector, DetectorSettings
from ddptrain.models.mask2former.segmenter import MaskSegmenter
from ddptrain.models.segmenter import Segmenter, SegmenterSettings
from ddptrain.models.torchvision_detectors import TorchvisionDetector
from ddptrain.models.torchvision_segmenters import TorchvisionSegmenter
from ddptrain.models.yolo.detector import YoloDetector

DETECTORS: dict[str, Callable[[Any, DetectorSettings], Detector]] = {
    "yolo": YoloDetector,
    **dict.fromkeys(TORCHVISION_DETECTORS, TorchvisionDetector),
}
SEGMENTERS: dict[str, Callable[[Any, SegmenterSettings], Segmenter]] = {
    "mask2former": MaskSegmenter,
    **dict.fromkeys(TORCHVISION_SEGMENTERS, TorchvisionSegmenter),
}

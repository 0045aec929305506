"""The detector of a run, with what it takes from the training boxes."""

from __future__ import annotations

import numpy as np

from ddptrain.config import DetectionRun, YoloConfig
from ddptrain.losses.image_labels import class_weights
from ddptrain.models.build import DETECTORS
from ddptrain.models.detector import Detector, DetectorSettings


def reads_boxes(config: DetectionRun) -> bool:
    """Whether the detector is another one once the training boxes are read."""
    anchors = isinstance(config.model, YoloConfig) and config.model.head == "anchor_based"
    return anchors or config.loss.class_weights == "balanced"


def build_detector(config: DetectionRun, objects: np.ndarray, sizes: np.ndarray | None = None) -> Detector:
    """
    Args:
        objects: int64 `[C]`: training boxes of each class, for a loss that balances the classes.
        sizes: float64 `[n, 2]`: of the training boxes in pixels of the input, for anchors that fit them; None if not read.
    """
    weights = class_weights(config.loss.class_weights, objects)
    settings = DetectorSettings(
        len(config.classes),
        config.data.image_size,
        config.loss,
        config.eval,
        config.train.global_batch,
        None if weights is None else weights / weights.mean(),
        sizes,
        config.seed,
    )
    return DETECTORS[config.model.name](config.model, settings)

"""The package's own detector behind the interface that all detectors share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ddptrain.config import YoloConfig
from ddptrain.models.detector import DetectorSettings, Judged
from ddptrain.models.yolo.anchors import Anchors, default_anchors, fit_anchors, recall_line
from ddptrain.models.yolo.decode import detections
from ddptrain.models.yolo.loss import detection_loss, every_term
from ddptrain.models.yolo.network import Yolo
from ddptrain.models.yolo.prediction import DualPrediction, Prediction
from ddptrain.structures import Batch, Detections, LossSum


class YoloDetector:
    """See `models.detector.Detector`."""

    partial_labels = True
    notes: Sequence[str] = ()

    def __init__(self, model: YoloConfig, settings: DetectorSettings) -> None:
        self.channels = model.in_channels
        self._model, self._settings, self._class_weights = model, settings, settings.class_weights
        self._anchors: Anchors | None = None
        sizes, limit = settings.box_sizes, settings.loss.anchor_t
        if model.head == "anchor_based" and sizes is not None and len(sizes):
            if model.anchors is None:
                fitted = fit_anchors(sizes, default_anchors(model.strides), limit, settings.seed)
                self._anchors, self.notes = fitted.anchors, (fitted.line,)
            else:
                self.notes = (recall_line(sizes, model.anchors, limit),)

    def build(self) -> nn.Module:
        return Yolo(self._model, self._settings.num_classes, self._settings.image_size, self._anchors)

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Summed loss; its normalizer is the sum of the weights of the objects' points."""
        prediction = model(batch.unit_images())
        terms = {**batch.targets, **self._weights(batch), "weights": batch.weights}
        loss = detection_loss(prediction, **terms, config=self._settings.loss)
        # YOLO's scale: the gradient of a step is that of global_batch times the mean loss, which lr and clip_norm are made for
        return loss.scaled(self._settings.global_batch)

    def detect(self, model: nn.Module, batch: Batch) -> list[Detections]:
        return self._decode(model(batch.unit_images()))

    def judge(self, model: nn.Module, batch: Batch) -> Judged:
        """Both from one forward pass."""
        prediction = model(batch.unit_images(), both=True)
        terms = every_term(prediction, **batch.targets, **self._weights(batch), config=self._settings.loss)
        image = batch.targets["image"]
        return Judged(self._decode(prediction), terms.parts, terms.normalizers(image), terms.without_point(image))

    def _decode(self, prediction: Prediction | DualPrediction) -> list[Detections]:
        used = prediction.one if isinstance(prediction, DualPrediction) else prediction
        return detections(used, self._settings.evaluation, one_to_one=self._model.head == "dual")

    def _weights(self, batch: Batch) -> dict[str, Any]:
        """Which classes count in an image, and how much; the factors are sent to the device once."""
        if self._class_weights is not None:
            self._class_weights = self._class_weights.to(batch.images.device)
        return {"annotated": batch.annotated, "class_weights": self._class_weights}

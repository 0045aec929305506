"""torchvision's detectors, by name, with the run's classes and without their resizing."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ddptrain.models.pretrained import with_weights_hint
from ddptrain.structures import Detections


class _AsGiven(GeneralizedRCNNTransform):
    """Normalises and batches; takes every image at the size it has, since it is letterboxed already."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


class TorchvisionDetector(nn.Module):
    """A detector of torchvision.

    Its own loss knows neither ignore regions nor classes that are not annotated.

    Args:
        name: torchvision's name of the detector.
        num_classes: classes of the run; a background class is added where the model has one.
        pretrained: start from the default COCO weights, all but the class layers.
        pretrained_backbone: start the backbone from its ImageNet weights (`pretrained` includes it).

    Raises:
        UserError: the weights are neither in torchvision's cache nor to be downloaded.
    """

    def __init__(self, name: str, num_classes: int, pretrained: bool = False, pretrained_backbone: bool = False) -> None:
        super().__init__()
        weights = get_model_weights(name).DEFAULT if pretrained else None
        backbone = _backbone_weights(name) if pretrained_backbone and not pretrained else None
        self.model = with_weights_hint(lambda: get_model(name, weights=weights, weights_backbone=backbone), weights, backbone)
        self.background = _replace_class_layers(self.model, num_classes)
        old: Any = self.model.transform
        self.model.transform = _AsGiven(32, 32, old.image_mean, old.image_std, size_divisible=old.size_divisible)

    def limit(self, score_threshold: float, max_detections: int) -> None:
        """What `forward` returns in eval mode: scores above the threshold, at most so many per image. The overlap of
        the suppression stays as torchvision has it for each model."""
        where: Any = self.model.roi_heads if isinstance(self.model, FasterRCNN) else self.model
        where.score_thresh = score_threshold
        where.detections_per_img = max_detections

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]] | None = None) -> dict[str, Tensor] | list[Detections]:
        """Losses in training mode, detections in eval mode.

        Args:
            images: float `[B, 3, H, W]` in 0..1.
            targets: per image `boxes` float32 `[n, 4]` in pixels and `labels` int64 `[n]` in 0..classes-1; needed in
                training mode.

        Returns:
            Training: the model's losses by name, each a mean over the images. Eval: B detections, best first, boxes
            in input pixels.
        """
        shift = int(self.background)
        if targets is not None:
            targets = [{"boxes": t["boxes"], "labels": t["labels"] + shift} for t in targets]
        out = self.model(list(images.unbind(0)), targets)
        if self.training:
            return out
        return [Detections(d["boxes"], d["scores"], d["labels"] - shift) for d in out]


def _backbone_weights(name: str) -> Any:
    backbone = "resnet50" if "resnet50" in name else "mobilenet_v3_large"
    return get_model_weights(backbone).DEFAULT


def _replace_class_layers(model: nn.Module, num_classes: int) -> bool:
    """Give `model` fresh class layers; True when its class 0 is the background."""
    if isinstance(model, FasterRCNN):
        heads: Any = model.roi_heads
        heads.box_predictor = FastRCNNPredictor(heads.box_predictor.cls_score.in_features, num_classes + 1)
        return True
    head: Any = model.head.classification_head  # type: ignore[union-attr]
    if isinstance(model, SSD):
        old_classes = head.num_columns
        for block in head.module_list:
            old = block[1]
            block[1] = nn.Conv2d(old.in_channels, old.out_channels // old_classes * (num_classes + 1), 1)
            nn.init.normal_(block[1].weight, std=0.03)
            nn.init.zeros_(block[1].bias)
        head.num_columns = num_classes + 1
        return True
    old = head.cls_logits
    head.cls_logits = nn.Conv2d(old.in_channels, head.num_anchors * num_classes, 3, padding=1)
    nn.init.normal_(head.cls_logits.weight, std=0.01)
    nn.init.constant_(head.cls_logits.bias, -math.log((1 - 0.01) / 0.01))
    head.num_classes = num_classes
    return False

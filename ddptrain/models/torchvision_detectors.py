"""torchvision's detectors, by name, with the run's classes and without their resizing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ddptrain.config import TorchvisionConfig
from ddptrain.models.class_layers import Layout
from ddptrain.models.detector import DetectorSettings, Judged
from ddptrain.models.norms import keep_types
from ddptrain.models.pretrained import published, torchvision_model
from ddptrain.structures import Batch, Detections, LossSum


class _AsGiven(GeneralizedRCNNTransform):
    """Normalises and batches; takes every image at the size it has, since it is letterboxed already. Mean and deviation go to a
    GPU once, and not with every image."""

    def __init__(self, old: Any) -> None:
        super().__init__(32, 32, old.image_mean, old.image_std, size_divisible=old.size_divisible)
        for name, values in (("mean", old.image_mean), ("std", old.image_std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def normalize(self, image: Tensor) -> Tensor:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return (image - mean) / std

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


class TorchvisionNetwork(nn.Module):
    """A detector of torchvision; it starts from COCO's weights (all but the class layers) or ImageNet's where the config says
    so.
    """

    def __init__(
        self,
        config: TorchvisionConfig,
        num_classes: int,
        score_threshold: float,
        max_detections: int,
        image_size: int = 320,
    ) -> None:
        """
        Args:
            num_classes: classes of the run; a background class is added where the network has one.
            score_threshold, max_detections: of what is returned in eval mode, per image.
                The overlap of the suppression stays as torchvision has it for each network.
            image_size: side of the input, of which SSDlite's anchors are parts.
        """
        super().__init__()
        weights = published(config.name, config.pretrained)
        backbone = "resnet50" if "resnet50" in config.name else "mobilenet_v3_large"
        own = published(backbone, config.pretrained_backbone and not config.pretrained)
        self.model: Any = torchvision_model(config.name, weights, weights_backbone=own)
        keep_types(self.model)
        _set_anchors(self.model, config, image_size)
        self.background = _replace_class_layers(self.model, num_classes)
        self.model.transform = _AsGiven(self.model.transform)
        last = self.model.roi_heads if isinstance(self.model, FasterRCNN) else self.model
        last.score_thresh, last.detections_per_img = score_threshold, max_detections

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

    def class_layers(self) -> dict[str, Layout]:
        if isinstance(self.model, FasterRCNN):
            predictor = "model.roi_heads.box_predictor"
            return {f"{predictor}.cls_score": Layout(before=1), f"{predictor}.bbox_pred": Layout(before=1, width=4)}
        head, name = self.model.head.classification_head, "model.head.classification_head"
        if isinstance(self.model, SSD):
            layers = [block[1] for block in head.module_list]
            layouts = [Layout(layer.out_channels // head.num_columns, before=1) for layer in layers]
            return {f"{name}.module_list.{i}.1": layout for i, layout in enumerate(layouts)}
        return {f"{name}.cls_logits": Layout(head.num_anchors)}


class TorchvisionDetector:
    """See `models.detector.Detector`. Its loss is the network's own, without gains of the config."""

    channels = 3
    partial_labels = False
    notes: Sequence[str] = ()

    def __init__(self, model: TorchvisionConfig, settings: DetectorSettings) -> None:
        self._model, self._settings = model, settings

    def build(self) -> nn.Module:
        e = self._settings.evaluation
        classes = self._settings.num_classes
        return TorchvisionNetwork(self._model, classes, e.score_threshold, e.max_detections, self._settings.image_size)

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """These networks average inside: the unit of the sums is the sample."""
        parts = {k: v * len(batch) for k, v in _means(model, batch).items()}
        normalizer = torch.full((), float(len(batch)), device=batch.images.device)
        detached = {name: part.detach() for name, part in parts.items()}
        return LossSum(sum(parts.values(), start=normalizer * 0), normalizer, detached, terms=parts)

    def detect(self, model: nn.Module, batch: Batch) -> list[Detections]:
        return list(model(batch.unit_images()))

    def judge(self, model: nn.Module, batch: Batch) -> Judged:
        """The loss takes a forward pass of its own; all images of a batch get its mean."""
        ones = torch.ones(len(batch), device=batch.images.device)
        with _giving_losses(model, batch):
            means = _means(model, batch)
        return Judged(self.detect(model, batch), {k: v * ones for k, v in means.items()}, ones)


def _means(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The network's own losses, means over the images of a batch."""
    t = batch.targets
    # one wait for the device; the objects stand in the order of their images
    counts = (t["image"][:, None] == torch.arange(len(batch), device=t["image"].device)).sum(0).tolist()
    each = zip(t["boxes"].split(counts), t["labels"].split(counts))
    targets = [{"boxes": boxes, "labels": labels} for boxes, labels in each]
    means: dict[str, Tensor] = model(batch.unit_images(), targets)
    return means


@contextmanager
def _giving_losses(model: nn.Module, batch: Batch) -> Iterator[None]:
    """A network in eval mode gives its losses instead of detections, norms and dropout stay in eval mode, and which anchors it
    looks at depends on the batch alone."""
    for module in model.modules():
        module.training = not isinstance(module, (nn.BatchNorm2d, nn.Dropout))
    device = batch.images.device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(batch.keys[0, 0]))
            yield
    finally:
        model.eval()


def _set_anchors(model: nn.Module, config: TorchvisionConfig, image_size: int) -> None:
    """Give `model` the anchors that the config asks for. Its layers stay where they still fit: with another number of anchors
    at a place those that predict them are fresh."""
    if config.anchor_sizes is None and config.aspect_ratios is None:
        return
    owner: Any = model.rpn if isinstance(model, FasterRCNN) else model
    sizes, old = config.anchor_sizes, owner.anchor_generator
    if isinstance(model, SSD):
        scales = [float(size) / image_size for size in sizes or ()]  # type: ignore[arg-type]  # the config has one a level
        owner.anchor_generator = DefaultBoxGenerator(old.aspect_ratios, scales=[*scales, 1.0])
        return
    levels = old.sizes if sizes is None else tuple(s if isinstance(s, tuple) else (s,) for s in sizes)
    ratios = (config.aspect_ratios or old.aspect_ratios[0],) * len(levels)
    owner.anchor_generator = AnchorGenerator(levels, ratios)
    count = owner.anchor_generator.num_anchors_per_location()[0]
    if count == old.num_anchors_per_location()[0]:
        return
    if isinstance(model, FasterRCNN):
        owner.head.cls_logits = _fresh(owner.head.cls_logits, count)
        owner.head.bbox_pred = _fresh(owner.head.bbox_pred, 4 * count)
    else:
        owner.head.classification_head.num_anchors = count
        owner.head.regression_head.bbox_reg = _fresh(owner.head.regression_head.bbox_reg, 4 * count)


def _fresh(old: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A layer like `old` with so many output channels, with torchvision's initial values."""
    kernel, padding = old.kernel_size[0], old.kernel_size[0] // 2
    new = nn.Conv2d(old.in_channels, channels, kernel, padding=padding)
    nn.init.normal_(new.weight, std=0.01)
    nn.init.zeros_(new.bias)  # type: ignore[arg-type]
    return new


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

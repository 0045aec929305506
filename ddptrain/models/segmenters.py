"""Networks that say of every pixel what it is: torchvision's, and Mask2Former of transformers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.segmentation import LRASPP

from ddptrain import distributed
from ddptrain.config import Mask2FormerConfig, SegmenterConfig
from ddptrain.errors import UserError
from ddptrain.models.classifiers import Normalised
from ddptrain.models.mask2former.network import build_mask2former
from ddptrain.models.norms import replace_batch_norms
from ddptrain.models.pretrained import with_weights_hint

MOMENTUM = 0.1
"""Of the running statistics of batch norms that start afresh."""


class Segmenter(nn.Module):
    """A segmentation model of torchvision with the run's classes.

    Raises:
        UserError: weights that are neither in torchvision's cache nor to be downloaded.
    """

    def __init__(self, config: SegmenterConfig, num_classes: int) -> None:
        super().__init__()
        weights = get_model_weights(config.name).DEFAULT if config.pretrained else None
        backbone = _backbone_weights(config.name) if config.pretrained_backbone and not config.pretrained else None
        # published weights bring an auxiliary head and classes of their own
        fresh = {} if config.pretrained else {"num_classes": num_classes, **({"aux_loss": True} if config.aux else {})}
        net: Any = with_weights_hint(
            lambda: get_model(config.name, weights=weights, weights_backbone=backbone, **fresh), weights, backbone
        )
        if config.pretrained:
            _replace_class_layers(net, num_classes)
        if not config.aux and getattr(net, "aux_classifier", None) is not None:
            net.aux_classifier = None
        for module in net.modules():
            if isinstance(module, nn.Dropout) and config.dropout is not None:
                module.p = config.dropout
            if isinstance(module, nn.BatchNorm2d) and not (config.pretrained or config.pretrained_backbone):
                # MobileNet's own 0.01 keeps the statistics of fresh weights for hundreds of steps
                module.momentum = MOMENTUM
        replace_batch_norms(net, config.norm)
        self.net = net
        self._synced = config.norm == "sync"
        self._pools = config.name.startswith("deeplabv3") and config.norm in ("batch", "sync")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """`out`, and with an auxiliary head in training `aux`: logits `[B, classes, H, W]` of images `[B, 3, H, W]`."""
        if self.training and self._pools and len(images) * (distributed.rank_and_size()[1] if self._synced else 1) == 1:
            raise UserError(
                "train.micro_batch: DeepLab pools each image to one pixel, and a batch norm cannot learn from a single one; "
                "make micro batches of 2 or more, or set model.norm to group or frozen"
            )
        out: dict[str, Tensor] = self.net(images)
        return out if self.training else {"out": out["out"]}


def build_segmenter(config: SegmenterConfig | Mask2FormerConfig, num_classes: int) -> nn.Module:
    """A network for float images `[B, 3, H, W]` in 0..1. In eval mode its forward gives `{"out": logits [B, classes, H,
    W]}`, in training mode what its loss wants.

    Raises:
        UserError: weights or packages that are not to be had, or weights that do not fit.
    """
    if isinstance(config, Mask2FormerConfig):
        return Normalised(build_mask2former(config, num_classes))
    return Normalised(Segmenter(config, num_classes))


def _backbone_weights(name: str) -> Any:
    return get_model_weights(name.split("_", 1)[1]).DEFAULT


def _replace_class_layers(net: nn.Module, num_classes: int) -> None:
    if isinstance(net, LRASPP):
        head: Any = net.classifier
        head.low_classifier = nn.Conv2d(head.low_classifier.in_channels, num_classes, 1)
        head.high_classifier = nn.Conv2d(head.high_classifier.in_channels, num_classes, 1)
        return
    for part in (net.classifier, net.aux_classifier):
        if part is not None:
            last: Any = part
            last[-1] = nn.Conv2d(last[-1].in_channels, num_classes, 1)

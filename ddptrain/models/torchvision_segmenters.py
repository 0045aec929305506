"""torchvision's segmenters, by name, with the run's classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.segmentation import LRASPP

from ddptrain import distributed
from ddptrain.config import PixelLossConfig, SegmenterConfig
from ddptrain.errors import UserError
from ddptrain.models.class_layers import Layout
from ddptrain.models.norms import average_fast, replace_batch_norms
from ddptrain.models.pretrained import Normalised, published, torchvision_model
from ddptrain.models.segmenter import SegmenterSettings, pixel_loss
from ddptrain.structures import Batch, LossSum


class SegmenterNetwork(nn.Module):
    """A segmentation model of torchvision with the run's classes."""

    def __init__(self, config: SegmenterConfig, num_classes: int) -> None:
        super().__init__()
        weights = published(config.name, config.pretrained)
        backbone = published(config.name.split("_", 1)[1], config.pretrained_backbone and not config.pretrained)
        # published weights bring an auxiliary head and classes of their own
        fresh = {} if config.pretrained else {"num_classes": num_classes, **({"aux_loss": True} if config.aux else {})}
        net: Any = torchvision_model(config.name, weights, weights_backbone=backbone, **fresh)
        if config.pretrained:
            _replace_class_layers(net, num_classes)
        if not config.aux and getattr(net, "aux_classifier", None) is not None:
            net.aux_classifier = None
        for module in net.modules():
            if isinstance(module, nn.Dropout) and config.dropout is not None:
                module.p = config.dropout
        if not (config.pretrained or config.pretrained_backbone):
            average_fast(net)
        replace_batch_norms(net, config.norm)
        self.net = net
        self._synced = config.norm == "sync"
        self._pools = config.name.startswith("deeplabv3") and config.norm in ("batch", "sync")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """`out`, and with an auxiliary head in training `aux`: logits `[B, classes, H, W]` of images `[B, 3, H, W]`."""
        if self.training and self._pools and len(images) * (distributed.rank_and_size()[1] if self._synced else 1) == 1:
            raise UserError(
                "train.micro_batch: DeepLab pools each image to one pixel, but a batch norm needs more than one value per "
                "channel; use micro batches of 2 or more, or set model.norm to group or frozen"
            )
        out: dict[str, Tensor] = self.net(images)
        return out if self.training else {"out": out["out"]}

    def class_layers(self) -> dict[str, Layout]:
        return {f"net.{name}": Layout() for name in _class_layers(self.net)}


class TorchvisionSegmenter:
    """See `models.segmenter.Segmenter`."""

    def __init__(self, model: SegmenterConfig, settings: SegmenterSettings) -> None:
        self._model, self._settings = model, settings

    def build(self) -> nn.Module:
        return Normalised(SegmenterNetwork(self._model, self._settings.num_classes))

    def loss(self, model: nn.Module, batch: Batch, class_weights: Tensor | None) -> LossSum:
        assert isinstance(self._settings.loss, PixelLossConfig)
        return pixel_loss(model(batch.unit_images()), batch, class_weights, self._settings.loss)


def _class_layers(net: Any) -> list[str]:
    """The names of the last layers of a segmenter of torchvision."""
    if isinstance(net, LRASPP):
        return ["classifier.low_classifier", "classifier.high_classifier"]
    heads = [(name, head) for name in ("classifier", "aux_classifier") if (head := getattr(net, name)) is not None]
    return [f"{name}.{len(head) - 1}" for name, head in heads]


def _replace_class_layers(net: nn.Module, num_classes: int) -> None:
    for name in _class_layers(net):
        old: Any = net.get_submodule(name)
        net.set_submodule(name, nn.Conv2d(old.in_channels, num_classes, 1))

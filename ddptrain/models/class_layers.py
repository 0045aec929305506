"""Where a network keeps what belongs to single classes, so that it can be taken over by the classes' names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.ssd import SSD
from torchvision.models.segmentation import LRASPP

from ddptrain.models.classifiers import LeNet, Normalised, SmallResNet, last_layer
from ddptrain.models.interaction import InteractionModel
from ddptrain.models.mask2former.network import Mask2Former
from ddptrain.models.segmenters import Segmenter
from ddptrain.models.torchvision_detectors import TorchvisionDetector
from ddptrain.models.yolo.detector import Yolo


class Layout(NamedTuple):
    """How the rows of a tensor follow each other: `[groups, before + classes + after, width]`.

    Attributes:
        groups: anchors, each of which has all classes.
        before, after: entries of no class in front of the classes and behind them (background, no object).
        width: rows of each class.
    """

    groups: int = 1
    before: int = 0
    after: int = 0
    width: int = 1

    def cut(self, tensor: Tensor, classes: int) -> Tensor | None:
        """`[groups, before + classes + after, width, …]`, a view; None where its rows are not so many."""
        entries = self.before + classes + self.after
        if tensor.shape[0] != self.groups * entries * self.width:
            return None
        return tensor.view(self.groups, entries, self.width, *tensor.shape[1:])


def class_layers(model: nn.Module) -> dict[str, Layout]:
    """The tensors of a built-in network, by name, whose rows belong to single classes; of any other network none."""
    found = dict(_layers(model))
    return {f"{name}.{kind}": layout for name, layout in found.items() for kind in ("weight", "bias")}


def _layers(model: nn.Module) -> Iterator[tuple[str, Layout]]:
    inner: Any = getattr(model, "model", None)
    if isinstance(model, Yolo):
        yield from ((f"head.logits.{i}", Layout()) for i in range(len(model.head.logits)))
    elif isinstance(model, InteractionModel):
        yield "kind.3", Layout()
    elif isinstance(model, TorchvisionDetector):
        yield from _detector(inner)
    elif isinstance(model, Normalised) and isinstance(inner, Segmenter):
        yield from _segmenter(inner.net)
    elif isinstance(model, Normalised) and isinstance(inner, Mask2Former):
        yield "model.net.class_predictor", Layout(after=1)
    elif isinstance(model, Normalised) and (isinstance(inner, (LeNet, SmallResNet)) or "torchvision" in type(inner).__module__):
        yield f"model.{last_layer(inner)[0]}", Layout()


def _detector(net: Any) -> Iterator[tuple[str, Layout]]:
    if isinstance(net, FasterRCNN):
        yield "model.roi_heads.box_predictor.cls_score", Layout(before=1)
        yield "model.roi_heads.box_predictor.bbox_pred", Layout(before=1, width=4)
        return
    head = net.head.classification_head
    if isinstance(net, SSD):
        for i, block in enumerate(head.module_list):
            yield (
                f"model.head.classification_head.module_list.{i}.1",
                Layout(block[1].out_channels // head.num_columns, before=1),
            )
        return
    yield "model.head.classification_head.cls_logits", Layout(head.num_anchors)


def _segmenter(net: Any) -> Iterator[tuple[str, Layout]]:
    if isinstance(net, LRASPP):
        names: Sequence[str] = ("classifier.low_classifier", "classifier.high_classifier")
    else:
        heads = (("classifier", net.classifier), ("aux_classifier", net.aux_classifier))
        names = [f"{name}.{len(head) - 1}" for name, head in heads if head is not None]
    yield from ((f"model.net.{name}", Layout()) for name in names)

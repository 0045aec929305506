"""The two kinds of detectors behind one face: what is learned from a batch, what is found in it, and both in an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from ddptrain.config import LossConfig, RunConfig
from ddptrain.models.torchvision_detectors import TorchvisionDetector
from ddptrain.models.yolo.decode import detections
from ddptrain.models.yolo.loss import detection_loss, detection_terms
from ddptrain.structures import Batch, DensePrediction, Detections, LossSum


class Judged(NamedTuple):
    """An evaluated batch.

    Attributes:
        found: the detections of each image.
        losses: its loss parts by name, float32 `[B]`.
        normalizers: what their sum is divided by, float32 `[B]`.
    """

    found: Sequence[Detections]
    losses: Mapping[str, Tensor]
    normalizers: Tensor


class Head(NamedTuple):
    """What a kind of detector does with a batch: `loss` in training mode, `detect` and `judge` in eval mode."""

    loss: Callable[[RunConfig, nn.Module, Batch], LossSum]
    detect: Callable[[RunConfig, nn.Module, Batch], Sequence[Detections]]
    judge: Callable[[RunConfig, nn.Module, Batch], Judged]


def _normalise(batch: Batch) -> Tensor:
    return batch.images.float() / 255


def _yolo_loss(config: RunConfig, model: nn.Module, batch: Batch) -> LossSum:
    assert isinstance(config.loss, LossConfig)
    loss = detection_loss(model(_normalise(batch)), **batch.targets, annotated=batch.annotated, config=config.loss)
    # YOLO's scale: the gradient of a step is that of global_batch times the mean loss, which lr and clip_norm are made for
    return loss.scaled(config.train.global_batch)


def _yolo_detect(config: RunConfig, model: nn.Module, batch: Batch) -> list[Detections]:
    return _yolo_found(config, model(_normalise(batch)))


def _yolo_found(config: RunConfig, said: DensePrediction) -> list[Detections]:
    e = config.eval
    return detections(said, score_threshold=e.score_threshold, nms_iou=e.nms_iou, max_detections=e.max_detections)


def _yolo_judge(config: RunConfig, model: nn.Module, batch: Batch) -> Judged:
    assert isinstance(config.loss, LossConfig)
    said: DensePrediction = model(_normalise(batch))
    terms = detection_terms(said, **batch.targets, annotated=batch.annotated, config=config.loss)
    return Judged(_yolo_found(config, said), terms.parts, terms.normalizers(batch.targets["image"]))


def _torchvision_means(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The model's own losses, means over the images of a batch."""
    t = batch.targets
    targets = [{"boxes": t["boxes"][t["image"] == i], "labels": t["labels"][t["image"] == i]} for i in range(len(batch))]
    means: dict[str, Tensor] = model(_normalise(batch), targets)
    return means


def _torchvision_loss(config: RunConfig, model: nn.Module, batch: Batch) -> LossSum:
    # these models average inside: the unit of their sums is the sample
    parts = {k: v * len(batch) for k, v in _torchvision_means(model, batch).items()}
    normalizer = torch.tensor(float(len(batch)), device=batch.images.device)
    return LossSum(sum(parts.values(), start=normalizer * 0), normalizer, {k: v.detach() for k, v in parts.items()})


def _torchvision_detect(config: RunConfig, model: nn.Module, batch: Batch) -> list[Detections]:
    assert isinstance(model, TorchvisionDetector)
    model.limit(config.eval.score_threshold, config.eval.max_detections)
    return list(model(_normalise(batch)))


def _torchvision_judge(config: RunConfig, model: nn.Module, batch: Batch) -> Judged:
    """Their loss takes a forward pass of its own; all images of a batch get its mean."""
    found = _torchvision_detect(config, model, batch)
    ones = torch.ones(len(batch), device=batch.images.device)
    with _losses_of(model, batch):
        means = _torchvision_means(model, batch)
    return Judged(found, {k: v * ones for k, v in means.items()}, ones)


@contextmanager
def _losses_of(model: nn.Module, batch: Batch) -> Iterator[None]:
    """A model in eval mode gives its losses instead of detections, norms and dropout stay in eval mode, and which anchors it
    looks at depends on the batch alone."""
    for module in model.modules():
        module.training = not isinstance(module, (_NormBase, _DropoutNd))
    device = batch.images.device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(batch.keys[0, 0]))
            yield
    finally:
        model.eval()


HEADS: dict[str, Head] = {
    "yolo": Head(_yolo_loss, _yolo_detect, _yolo_judge),
    "torchvision": Head(_torchvision_loss, _torchvision_detect, _torchvision_judge),
}

"""What a pixel of the input costs the detector: operations, memory for the backward pass, and time."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ddptrain.config import YoloConfig
from ddptrain.models.yolo.network import Yolo
from ddptrain.models.yolo.prediction import DualPrediction, Prediction

_SIDE = 256
_BATCH, _TIMES = {"cpu": 1}, 2
"""Images of a timed pass, elsewhere 16; how often it is timed."""


class Cost(NamedTuple):
    """Of a pixel of the input; all layers are convolutions, so that an image costs as many times as much as it has pixels.

    Attributes:
        operations: of a forward pass, an addition and a multiplication counted as two.
        bytes: kept in float32 for the backward pass, without the loss.
        seconds: of the forward and the backward pass in float32, without the loss, on the device; NaN where a GPU has no room.
    """

    operations: float
    bytes: float
    seconds: float


def cost_of_a_pixel(config: YoloConfig, classes: int, device: torch.device) -> Cost:
    """Measured on small images, with fresh weights; random state and threads of the caller stay as they are."""
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # a freed address would come again
        return tensor

    with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
        model = Yolo(config.model_copy(update={"pretrained": False}), classes, _SIDE)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        with saved_tensors_hooks(note, lambda tensor: tensor):
            model(torch.rand(1, config.in_channels, _SIDE, _SIDE))
    operations, kept_bytes = counter.get_total_flops() / _SIDE**2, sum(kept.values()) / _SIDE**2
    try:
        seconds = _seconds(model.to(device), config.in_channels, device)
    except RuntimeError:  # a GPU that others use: all else is known without it
        if device.type == "cpu":
            raise
        seconds = math.nan
    return Cost(operations, kept_bytes, seconds / _SIDE**2)


def _seconds(model: Yolo, channels: int, device: torch.device) -> float:
    """The shortest of some passes of an image forward and backward, after one that does not count."""
    images = torch.full((_BATCH.get(device.type, 16), channels, _SIDE, _SIDE), 0.5, device=device)
    taken = []
    for _ in range(1 + _TIMES):
        start = time.perf_counter()
        total = _sum(model(images))
        total.backward()
        total.item()  # a GPU has ended then
        taken.append(time.perf_counter() - start)
    return min(taken[1:]) / len(images)


def _sum(prediction: Prediction | DualPrediction) -> Tensor:
    """Of all outputs that have a gradient."""
    parts = [_sum(p) if isinstance(p, tuple) else p.sum() for p in prediction if isinstance(p, tuple) or p.requires_grad]
    return torch.stack(parts).sum()

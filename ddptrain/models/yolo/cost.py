"""What a pixel of the input costs the detector: operations, and memory for the backward pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ddptrain.config import YoloConfig
from ddptrain.models.yolo.network import Yolo

_SIDE = 256


class Cost(NamedTuple):
    """Of a pixel of the input; all layers are convolutions, so that an image costs as many times as much as it has pixels.

    Attributes:
        operations: of a forward pass, an addition and a multiplication counted as two.
        bytes: kept in float32 for the backward pass, without the loss.
    """

    operations: float
    bytes: float


def cost_of_a_pixel(config: YoloConfig, classes: int) -> Cost:
    """Measured on a small image, with fresh weights; random state and threads of the caller stay as they are."""
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
    return Cost(counter.get_total_flops() / _SIDE**2, sum(kept.values()) / _SIDE**2)

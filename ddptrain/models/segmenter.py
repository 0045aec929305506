"""What every segmenter offers, and the loss of those that score every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ddptrain.config import MaskLossConfig, PixelLossConfig
from ddptrain.losses.pixels import dice, known_logits, pixel_cross_entropy
from ddptrain.structures import Batch, LossSum


class SegmenterSettings(NamedTuple):
    """What a segmenter may use of a run beside its own `model` section.

    Attributes:
        num_classes: classes of the run, >= 1.
        loss: this section of the config, of the kind that the network has.
        seed: of the run.
    """

    num_classes: int
    loss: PixelLossConfig | MaskLossConfig
    seed: int


class Segmenter(Protocol):
    """A network for segmentation with its loss. It holds settings; the weights stand in the model that `build` makes.

    The model takes float images `[B, 3, H, W]` in 0..1. In eval mode it gives `{"out": logits [B, classes, H, W]}`, in training
    mode what its loss takes.
    """

    def build(self) -> nn.Module:
        """The network, on the CPU.

        Raises:
            UserError: weights or packages that are not available, or weights that do not fit.
        """
        ...

    def loss(self, model: nn.Module, batch: Batch, class_weights: Tensor | None) -> LossSum:
        """Summed loss of a micro batch, of a model in training mode; `class_weights` float `[classes]`, on its device."""
        ...


def pixel_loss(outputs: Mapping[str, Tensor], batch: Batch, weights: Tensor | None, config: PixelLossConfig) -> LossSum:
    """Cross entropy and Dice loss of the heads `out` and `aux`, logits `[B, classes, H, W]`. All divide by the pixels of the
    step (or their classes' weights): the Dice loss of an image counts as often as it has pixels (or by their classes'
    weights), so that one number serves both terms. An image whose dataset labels a single class teaches nothing, and its
    pixels do not count."""
    mask = batch.targets["mask"]
    teaches = batch.annotated.sum(1) > 1
    parts: dict[str, Tensor] = {}
    counts = mask.new_zeros(len(mask), dtype=torch.float32)
    for head, gain in (("out", 1.0), ("aux", config.aux)):
        if head not in outputs:
            continue
        logits = known_logits(outputs[head], batch.annotated)
        cross_entropy, counts = pixel_cross_entropy(logits, mask, weights)
        counts = counts * teaches
        terms = {"cross_entropy": config.cross_entropy * cross_entropy}
        if config.dice:
            terms["dice"] = config.dice * dice(logits, mask) * counts
        parts |= terms if head == "out" else {"aux": gain * sum(terms.values(), start=counts * 0)}
    return LossSum.of(parts, counts.sum(), batch.weights)

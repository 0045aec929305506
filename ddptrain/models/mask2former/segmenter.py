"""Mask2Former behind the interface that all segmenters share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddptrain.config import Mask2FormerConfig, MaskLossConfig
from ddptrain.models.mask2former.loss import mask_sums
from ddptrain.models.mask2former.network import build_mask2former
from ddptrain.models.pretrained import Normalised
from ddptrain.models.segmenter import SegmenterSettings
from ddptrain.seeding import rng
from ddptrain.structures import Batch, LossSum


class MaskSegmenter:
    """See `models.segmenter.Segmenter`. Its normalizer is the number of masks; weights of classes are not used."""

    def __init__(self, model: Mask2FormerConfig, settings: SegmenterSettings) -> None:
        self._model, self._settings = model, settings

    def build(self) -> nn.Module:
        return Normalised(build_mask2former(self._model, self._settings.num_classes))

    def loss(self, model: nn.Module, batch: Batch, class_weights: Tensor | None) -> LossSum:
        """The points of an image are drawn by a generator of its own."""
        config, seed, mask = self._settings.loss, self._settings.seed, batch.targets["mask"]
        assert isinstance(config, MaskLossConfig)
        generators = [
            torch.Generator(mask.device).manual_seed(int(rng(seed, position, "mask points").integers(2**62)))
            for position in batch.keys[:, 0].tolist()
        ]
        outputs = model(batch.unit_images())
        parts, counts = mask_sums(outputs["classes"], outputs["masks"], mask, batch.annotated, generators, config)
        return LossSum.of(parts, counts.sum(), batch.weights)

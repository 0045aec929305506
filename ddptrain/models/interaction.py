"""Two people of a panorama: do they interact, and how. One network sees both and their union; a head for each question."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ddptrain.config import ClassifierConfig, InteractionConfig, SmallResNetConfig
from ddptrain.models.class_layers import Layout
from ddptrain.models.classifiers import build_classifier, last_layer

CROPS = 3
"""The first person, the second, and both."""


class InteractionModel(nn.Module):
    """Logits of a pair; those of (a, b) are those of (b, a), because only sums and differences of the two are looked at.

    Attributes:
        backbone: sees each of the three crops.
        interacting: the head of stage 1: logits of "not interacting" and "interacting".
        kind: the head of stage 2: logits of the classes.
    """

    def __init__(self, config: InteractionConfig, num_classes: int, geometry: int, image_size: int) -> None:
        """
        Args:
            num_classes: classes of stage 2.
            geometry: number of geometry features.
            image_size: side of a crop in pixels.
        """
        super().__init__()
        self.backbone = build_classifier(_backbone(config), 1, image_size)
        name, last = last_layer(self.backbone)
        self.backbone.set_submodule(name, nn.Identity())
        width = last.weight.shape[1]

        def head(outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(CROPS * width + geometry, config.hidden),
                nn.ReLU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.hidden, outputs),
            )

        self.interacting, self.kind = head(2), head(num_classes)
        # the head of the other stage stays as it is: no gradient, no decay, nothing that DDP would wait for
        (self.kind if config.stage == 1 else self.interacting).requires_grad_(False)

    def forward(self, images: Tensor, geometry: Tensor) -> dict[str, Tensor]:
        """
        Args:
            images: float `[B, 9, S, S]` in 0..1: the first person, the second, and both.
            geometry: float `[B, G]`.

        Returns:
            `interacting` `[B, 2]` and `kind` `[B, C]`, logits.
        """
        seen = self.backbone(images.unflatten(1, (CROPS, -1)).flatten(0, 1))
        one, other, both = seen.flatten(1).unflatten(0, (-1, CROPS)).unbind(1)
        features = torch.cat([one + other, (one - other).abs(), both, geometry.to(both.dtype)], 1)
        return {"interacting": self.interacting(features), "kind": self.kind(features)}

    def class_layers(self) -> dict[str, Layout]:
        return {"kind.3": Layout()}


def _backbone(config: InteractionConfig) -> ClassifierConfig | SmallResNetConfig:
    if config.backbone == "small_resnet":
        return SmallResNetConfig(blocks=config.blocks, width=config.width, norm=config.norm)
    name: Any = config.backbone
    return ClassifierConfig(name=name, pretrained=config.pretrained, weights=config.weights)

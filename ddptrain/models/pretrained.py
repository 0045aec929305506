"""torchvision's networks and their published weights: where they are looked for, and the error when they are not available."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from ddptrain.errors import UserError
from ddptrain.models.class_layers import ByClass, Layout

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in 0..1; what torchvision's weights were trained with."""


class Normalised(nn.Module):
    """A network behind the usual normalisation of its input: float `[B, 3 k, S, S]` in 0..1 (k images in the channels)."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Any:
        """What the network makes of the normalised images."""
        copies = images.shape[1] // 3
        return self.model((images - self.mean.repeat(copies, 1, 1)) / self.std.repeat(copies, 1, 1))

    def class_layers(self) -> dict[str, Layout]:
        """Those of the network, see `models.class_layers`."""
        inner = self.model
        return {f"model.{name}": layout for name, layout in inner.class_layers().items()} if isinstance(inner, ByClass) else {}


def published(name: str, use: bool) -> Any:
    """torchvision's default weights of a network; None unless they are to be used."""
    return get_model_weights(name).DEFAULT if use else None


def torchvision_model(name: str, weights: Any = None, **options: Any) -> nn.Module:
    """torchvision's network by name; its weights come from torch's cache or else are downloaded.

    Args:
        weights: see `published`.
        options: further arguments of the network; `weights_backbone` takes weights too.

    Raises:
        UserError: a download failed; the message names the file and where to put it.
    """
    try:
        return get_model(name, weights=weights, **options)
    except (OSError, RuntimeError) as e:  # URLError is an OSError; a broken download is a RuntimeError of torch.hub
        urls = " and ".join(w.url for w in (weights, options.get("weights_backbone")) if w is not None)
        if not urls:
            raise
        reason = " ".join(str(e).split())
        raise UserError(f"pretrained weights: {reason}; put {urls} into {torch.hub.get_dir()}/checkpoints") from None

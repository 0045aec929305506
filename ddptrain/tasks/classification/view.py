"""Pictures of classified images."""

from __future__ import annotations

import numpy as np
import torch

from ddptrain.losses.image_labels import mix
from ddptrain.reporting import pictures
from ddptrain.structures import Sample
from ddptrain.tasks.base import Prediction
from ddptrain.tasks.logits.view import LogitsView

PICTURE_SIDE = 192
"""Pictures of smaller images are enlarged to at least this many pixels."""


class ClassificationView(LogitsView):
    """See `tasks.base.View`."""

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """The image under the names of its file and its classes, mixed as the network sees it, each class with its part; with a
        prediction, that in brackets."""
        t = {name: torch.from_numpy(np.asarray(value))[None] for name, value in sample.targets.items()}
        if "partner" not in t or not t["partner_classes"].any():
            return titled(sample.image, self.title(sample, prediction))
        image = torch.from_numpy(sample.image).permute(2, 0, 1)[None].float()
        mixed, classes = mix(image, t["classes"], t["partner"], t["partner_classes"], t["part"], t["box"])
        parts = [f"{name} {part:.2f}" for name, part in zip(self.classes, classes[0].tolist()) if part]
        pixels = np.ascontiguousarray(mixed[0].permute(1, 2, 0).round().byte().numpy())
        return titled(pixels, f"{self.file_name(sample, prediction)}: {', '.join(parts)}")


def titled(image: np.ndarray, title: str) -> np.ndarray:
    """The image, large enough to be looked at, with a title."""
    return pictures.draw(image, [], [], (), title=title, min_side=PICTURE_SIDE)

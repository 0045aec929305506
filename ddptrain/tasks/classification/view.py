"""Pictures of classified images."""

from __future__ import annotations

import numpy as np

from ddptrain.reporting import pictures
from ddptrain.structures import Sample
from ddptrain.tasks.base import Prediction
from ddptrain.tasks.logits.view import LogitsView

PICTURE_SIDE = 192
"""Pictures of smaller images are enlarged to at least this many pixels."""


class ClassificationView(LogitsView):
    """See `tasks.base.View`."""

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """The image under the names of its file and its classes; with a prediction, that in brackets."""
        return titled(sample.image, self.title(sample, prediction))


def titled(image: np.ndarray, title: str) -> np.ndarray:
    """The image, large enough to be looked at, with a title."""
    return pictures.draw(image, [], [], (), title=title, min_side=PICTURE_SIDE)

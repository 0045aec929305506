"""Pictures and tables of pairs of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddptrain.data.images.read import BadImage
from ddptrain.reporting import panorama
from ddptrain.structures import Sample, SampleKey
from ddptrain.tasks.base import Prediction
from ddptrain.tasks.logits.view import LogitsView


class InteractionView(LogitsView):
    """See `tasks.base.View`."""

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """The main metrics of each dataset, of all together, and of each class."""
        header, rows = super().summary(metrics)
        counts = sum(t.sum(0) for t in self.task.val_truth)
        for c, n in zip(self.classes, np.asarray(counts).tolist()):
            rows.append([f"  {c}", n, *(metrics.get(f"class/{c}/{k}") for k in header[2:])])
        return header, rows

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """The panorama around the pair with both boxes, above the network's input; with a prediction, that in brackets."""
        samples: Any = self.task.train if prediction is None else self.task.val_samples
        try:
            image = samples.read(SampleKey(*sample.key))
        except BadImage:
            image = None
        views = [np.ascontiguousarray(v) for v in np.split(sample.image, sample.image.shape[2] // 3, 2)]
        return panorama.strip(image, sample.targets["boxes"], views, self.title(sample, prediction))

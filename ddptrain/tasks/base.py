"""What the engine asks of a task. The engine holds no branch on which task it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import nn

from ddptrain.data.loader import Samples
from ddptrain.data.mixture import Mixture
from ddptrain.structures import Batch, LossSum, Sample


Prediction = Mapping[str, np.ndarray]
"""What a model says about one sample, in flat arrays of the task's own that can be sent between ranks."""


class Task(Protocol):
    """One kind of learning: its data, its model, its loss, its metric.

    Attributes:
        classes: the run's classes.
        mixture: names, sizes and shares of the training datasets.
        train: their samples.
        val: (name, number of samples) of each validation dataset, in the order of `SampleKey.dataset`.
        val_samples: their samples, without augmentation.
        best_metric: the metric by which checkpoints are compared; higher is better.
        notes: lines for the log about what was read (counts, faults).
    """

    classes: tuple[str, ...]
    mixture: Mixture
    train: Samples
    val: Sequence[tuple[str, int]]
    val_samples: Samples
    best_metric: str
    notes: Sequence[str]

    def build_model(self) -> nn.Module:
        """A model with fresh (or pretrained) weights, on the CPU."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Summed loss of a micro batch; must call `model` itself, which may be wrapped in DDP."""
        ...

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """One prediction per sample of the batch, in coordinates of the file."""
        ...

    def metrics(self, predictions: Sequence[Mapping[int, Prediction]]) -> dict[str, float]:
        """Metrics from the predictions of each validation dataset, by sample index. Flat names; higher-level keys first."""
        ...

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """uint8 RGB picture of a sample with its truth, or of truth beside the prediction."""
        ...

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """Header and rows of the table a person reads after an evaluation."""
        ...

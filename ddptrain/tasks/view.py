"""What the views of the built-in tasks share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ddptrain.metrics.outcome import Outcome
from ddptrain.structures import Sample, SampleKey
from ddptrain.tasks.base import Prediction, Task, View


class TableView(View):
    """The view of a task that has read its datasets."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.classes = task.classes

    def file_name(self, sample: Sample, prediction: Prediction | None) -> str:
        """Name of the file that a training sample (one without a prediction) or a validation sample is made of."""
        samples = self.task.train if prediction is None else self.task.val_samples
        return os.path.basename(samples.source(SampleKey(*sample.key)))

    def names(self, outcome: Outcome) -> Callable[[SampleKey], str]:
        """What tells the name of a validation sample's file, its path below the dataset's root."""
        first = np.searchsorted(outcome.dataset, np.arange(len(outcome.datasets)))
        samples: Any = self.task.val_samples
        return lambda key: outcome.images[int(first[key.dataset]) + int(samples.file_of(key))]

    def rows(self, metrics: Mapping[str, float], keys: Sequence[str]) -> list[list[Any]]:
        """Name, number of samples and metrics of each validation dataset, and of all together."""
        val = self.task.val
        own = [[name, n, *(metrics.get(f"dataset/{name}/{k}") for k in keys)] for name, n in val]
        return [*own, ["all", sum(n for _, n in val), *(metrics.get(k) for k in keys)]]

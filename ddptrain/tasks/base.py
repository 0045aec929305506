"""What the engine asks of a task. The engine holds no branch on which task it runs."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ddptrain.config import RunConfig
from ddptrain.data.loading.workers import Samples
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.data.tables.contents import Contents
from ddptrain.errors import UserError
from ddptrain.structures import Batch, LossSum, Sample, SampleKey

Prediction = Mapping[str, np.ndarray]
"""What a model says about one sample, in flat arrays of the task's own that can be sent between ranks."""


def file_name(samples: Samples, sample: Sample) -> str:
    """Name of the file that one of `samples` is made of, for the title of its picture."""
    return os.path.basename(samples.source(SampleKey(*sample.key)))


class Model(Protocol):
    """The half of a task that needs no datasets: what a trained run is used with."""

    def build_model(self) -> nn.Module:
        """A model with fresh (or pretrained) weights, on the CPU."""
        ...

    def predict_file(
        self, model: nn.Module, path: Path, device: torch.device, score: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """What the model finds in an image file: for JSON, and as a picture with all that has at least `score`. A value of
        bytes is a PNG, which is written beside the picture and named in the JSON."""
        ...


class Task(Model, Protocol):
    """One kind of learning: its data, its model, its loss, its metric."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The run's classes."""
        ...

    @property
    def sampler(self) -> DistributedWeightedSampler:
        """The global stream of training samples: datasets, shares, weights. The engine only asks its `keys` and `mixture`."""
        ...

    @property
    def train(self) -> Samples:
        """The training samples."""
        ...

    @property
    def val(self) -> Sequence[tuple[str, int]]:
        """(name, number of samples) of each validation dataset, in the order of `SampleKey.dataset`."""
        ...

    @property
    def val_samples(self) -> Samples:
        """The validation samples, without augmentation."""
        ...

    @property
    def monitors(self) -> Sequence[str]:
        """Metrics by which checkpoints can be compared, the task's own first; lower is better for `loss`, else higher."""
        ...

    @property
    def contents(self) -> Sequence[Contents]:
        """What each dataset held when it was read: a run that goes on is told what was replaced meanwhile."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Lines for the log about what was read (counts, faults)."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Summed loss of a micro batch; must call `model` itself, which may be wrapped in DDP."""
        ...

    def predict(self, model: nn.Module, batch: Batch) -> Sequence[Prediction]:
        """One prediction per sample of the batch, in coordinates of the file."""
        ...

    def metrics(self, predictions: Sequence[Mapping[int, Prediction]]) -> dict[str, float]:
        """Metrics from the predictions of each validation dataset, by sample index; flat names, `dataset/<name>/…` for one."""
        ...

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """uint8 RGB picture of a sample with its truth, or of truth beside the prediction."""
        ...

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """Header and rows of the table a person reads after an evaluation."""
        ...

    def remarks(self, metrics: Mapping[str, float]) -> Sequence[str]:
        """What the metrics hide from a hasty reader, a line each."""
        ...

    def report(
        self, folder: Path, predictions: Sequence[Mapping[int, Prediction]], history: Mapping[str, Sequence[float]]
    ) -> None:
        """Write figures and text about the last evaluation of a run; `history` holds the columns of history.csv.

        Raises:
            ImportError: a package for figures is not installed.
        """
        ...


class OwnTask(ABC):
    """A `Task` with a default for all that a task can do without; see docs/tasks.md.

    `OwnTask(config)` alone is the half that needs no datasets; `read` makes the other half. A subclass gives `read`,
    `build_model`, `loss`, `predict` and `metrics`.

    Attributes:
        sampler, train, val, val_samples: to be set by `read`, see `Task`.
    """

    monitors: Sequence[str] = ("loss",)
    contents: Sequence[Contents] = ()
    sampler: DistributedWeightedSampler
    train: Samples
    val: Sequence[tuple[str, int]]
    val_samples: Samples

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.classes = config.classes
        self.notes: list[str] = []

    @abstractmethod
    def read(self) -> None:
        """Read the datasets of the config."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """See `Model`."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """See `Task`."""

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> Sequence[Prediction]:
        """See `Task`."""

    @abstractmethod
    def metrics(self, predictions: Sequence[Mapping[int, Prediction]]) -> dict[str, float]:
        """See `Task`; all of `monitors` must be among them."""

    def predict_file(
        self, model: nn.Module, path: Path, device: torch.device, score: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Here: not known."""
        raise UserError(f"predict: {type(self).__name__} has no predict_file; write one")

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """Here: the first three channels of what the network sees."""
        shown = sample.image[..., :3] if sample.image.shape[2] >= 3 else np.repeat(sample.image[..., :1], 3, 2)
        return np.ascontiguousarray(shown)

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """Here: each metric in a row."""
        return ["metric", "value"], [[name, value] for name, value in metrics.items()]

    def remarks(self, metrics: Mapping[str, float]) -> Sequence[str]:
        """Here: none."""
        return ()

    def report(
        self, folder: Path, predictions: Sequence[Mapping[int, Prediction]], history: Mapping[str, Sequence[float]]
    ) -> None:
        """Here: nothing is written."""
        return

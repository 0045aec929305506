"""`Task`: one kind of learning, as the engine sees it; built-in tasks and a user's own derive from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, device, nn

from ddptrain.config import RunConfig
from ddptrain.data.images.read import BadImage, read_image
from ddptrain.data.loading.workers import Samples
from ddptrain.data.stream.balance import Balance
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.data.tables.contents import Contents
from ddptrain.errors import UserError
from ddptrain.metrics.outcome import Outcome
from ddptrain.reporting.run_page.parts import Section
from ddptrain.reporting.trackers.base import Watched
from ddptrain.structures import Batch, LossSum, Sample
from ddptrain.tasks.inspection.base import Inspection

Prediction = Mapping[str, np.ndarray]
"""A model's answer for one sample, in flat arrays of the task's own that can be sent between ranks."""
Predictions = Sequence[Mapping[int, Prediction]]
"""Those of each validation dataset, by sample index."""
FileAnswer = tuple[dict[str, Any], np.ndarray]
"""Plain values for JSON, and a picture; a value of type bytes is a PNG, which is written beside the picture."""


class View:
    """How a task is shown to a person; these defaults fit any task."""

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """uint8 RGB picture of a training sample with its truth, or of a validation sample with truth and prediction; here
        the first three channels of the network's input."""
        shown = sample.image[..., :3] if sample.image.shape[2] >= 3 else np.repeat(sample.image[..., :1], 3, 2)
        return np.ascontiguousarray(shown)

    def figures(self) -> Sequence[tuple[np.ndarray, str]]:
        """Further pictures of the training data for `ddptrain check`, each with a sentence; here none."""
        return ()

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """Header and rows of the table that is printed after an evaluation; here a row for each metric."""
        return ["metric", "value"], [[name, value] for name, value in metrics.items()]

    def remarks(self, metrics: Mapping[str, float]) -> Sequence[str]:
        """What the metrics hide from a hasty reader, one line each; here none."""
        return ()

    def watched(self, predictions: Predictions, metrics: Mapping[str, float]) -> Watched:
        """What trackers show of an evaluation while the run continues, made in little time; here nothing."""
        return Watched({}, {})

    def report(self, folder: Path, predictions: Predictions, history: Mapping[str, Sequence[float]]) -> None:
        """Write figures and text about the last evaluation of a run; here none.

        Args:
            history: the columns of history.csv.

        Raises:
            ImportError: a package for figures is not installed.
        """

    def sections(self, predictions: Predictions, outcome: Outcome | None) -> Sequence[Section]:
        """What the page of a run says of its evaluation beside its metrics: curves, tables, pictures that `report` writes; here
        nothing.

        Args:
            outcome: what is kept of the evaluation, if the task keeps anything; where that is enough for `report_outcome`,
                there may be no predictions.
        """
        return ()

    def report_outcome(self, folder: Path, outcome: Outcome, history: Mapping[str, Sequence[float]]) -> bool:
        """The same from what was kept of an evaluation; here that is not enough: False."""
        return False


class Task(ABC):
    """One kind of learning: its network, loss, data and metrics. The engine holds no branch on which task it runs.

    `Task(config)` reads no dataset: it can build the network, compute losses and predict. `read` adds the data.

    Attributes:
        config: the run's config.
        classes: the classes that the network answers with.
        monitors: metrics by which checkpoints can be compared, the most important first; lower is better for `loss`, higher
            for all others.
        notes: lines for the log about what was read.
        contents: what each dataset held when it was read, so that a resumed run notices replaced files.
        sampler: set by `read`: the stream of training samples (datasets, shares, weights).
        balance: set by `read`: how the samples are weighed by their classes, where the run counts what is drawn; else None.
        train: set by `read`: the training samples.
        val: set by `read`: (name, number of samples) of each validation dataset, in the order of `SampleKey.dataset`.
        val_samples: set by `read`: the validation samples, without augmentation.
        val_shapes: int `[n, 2]` for each validation dataset: the shape of each sample, where they are not all equal; samples
            are forwarded together with those of their shape. None where any of them can be.
        val_batch: set by `read`: samples that are loaded together in an evaluation; None for as many as are forwarded at once.
    """

    classes: Sequence[str]
    monitors: Sequence[str] = ("loss",)
    contents: Sequence[Contents] = ()
    sampler: DistributedWeightedSampler
    balance: Balance | None = None
    train: Samples
    val: Sequence[tuple[str, int]]
    val_samples: Samples
    val_shapes: Sequence[np.ndarray] | None = None
    val_batch: int | None = None

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.classes = config.classes
        self.notes: list[str] = []

    @abstractmethod
    def read(self) -> None:
        """Read the datasets of the config.

        Raises:
            UserError: a mistake in the datasets or in what the config says about them.
        """

    @abstractmethod
    def build_model(self) -> nn.Module:
        """A network with fresh (or pretrained) weights, on the CPU."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Summed loss of a micro batch; must call `model` itself, which may be wrapped in DDP."""

    def at_step(self, batch: Batch, number: int) -> Batch:
        """A micro batch of training as a step sees it, on its device, before the loss: a function of both, so that it is the
        same for any split and after a resume; here as it is.

        Args:
            number: steps before this one, skipped ones included.
        """
        return batch

    def at_largest(self, batch: Batch) -> Batch:
        """A micro batch as the step that takes the most memory sees it; here as it is."""
        return batch

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> Sequence[Prediction]:
        """One prediction per sample of the batch, in coordinates of the file."""

    @abstractmethod
    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Metrics from the predictions of each validation dataset, by sample index. Flat names, `dataset/<name>/…` for those
        of one dataset; all of `monitors` must be among them."""

    def outcome(self, predictions: Predictions, metrics: Mapping[str, float], about: Mapping[str, Any]) -> Outcome | None:
        """What is kept of an evaluation with the run, for intervals, comparisons and reports; here nothing.

        Args:
            metrics: those of the predictions.
            about: which weights were evaluated, plain values.
        """
        return None

    def read_file(self, path: Path) -> np.ndarray:
        """The pixels of an image file to predict, uint8 `[H, W, 3]`."""
        try:
            return read_image(str(path), self.config.data.exif)
        except BadImage as e:
            raise UserError(str(e)) from None

    def predict_image(self, model: nn.Module, image: np.ndarray, device: device, path: Path | None = None) -> Prediction:
        """The prediction for one image in flat arrays by name, as `ddptrain.load(…).predict` returns it.

        Args:
            image: uint8 `[H, W, 3]`, RGB.
            path: the file of the image if it comes from one, for depth maps or labels beside it.
        """
        raise UserError(f"predict: {type(self).__name__} has no predict_image; write one")

    def predict_file(self, model: nn.Module, path: Path, device: device, score: float) -> FileAnswer:
        """The prediction for an image file; the picture shows what has at least `score`."""
        raise UserError(f"predict: {type(self).__name__} has no predict_file; write one")

    def example_input(self) -> tuple[Tensor, ...]:
        """Two samples as the network's `forward` takes them, for `ddptrain export` and `ddptrain model`."""
        raise UserError(f"{type(self).__name__} has no example_input, which this command needs; write one")

    @property
    def view(self) -> View:
        """How samples, metrics and results are shown."""
        return View()

    def inspect(self, images: int) -> Inspection:
        """What `ddptrain check` says about the datasets of a run before anything is learned.

        Args:
            images: how many are opened to look for duplicates, over all datasets; 0 for all.
        """
        missing = "faults, classes, duplicates and leaks of its datasets were not checked"
        return Inspection(warnings=[f"{self.config.task}: a task of your own has no inspection: {missing}"])

    def with_classes(self) -> Task:
        """This task; where the config says `classes: auto`, one whose config lists the classes of the training datasets.

        Raises:
            UserError: the datasets do not name their classes, or no class is left.
        """
        if not self.config.classes:
            raise UserError(f"classes: auto is not supported by {self.config.task}, a task of your own; list the classes")
        return self


class OwnTask(View, Task):
    """A `Task` that is its own view: the base that a user's own tasks had before views stood beside them."""

    @property
    def view(self) -> View:
        return self

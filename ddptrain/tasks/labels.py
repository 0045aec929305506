"""What tasks share whose model gives logits over classes: loss, metrics, remarks and report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.config import ImageLossConfig, RunConfig
from ddptrain.data.stream.balance import balanced_weights
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.errors import UserError
from ddptrain.losses.image_labels import binary_cross_entropy, class_weights, cross_entropy
from ddptrain.metrics import classification as metric
from ddptrain.reporting import report
from ddptrain.structures import Batch, LossSum
from ddptrain.tasks.base import Prediction
from ddptrain.tasks.stream import build_sampler

COLLAPSED = 0.97
"""Part of the samples with one and the same answer, from which on a classifier is said to have collapsed."""


class LabelModel(ABC):
    """The half that needs no datasets."""

    def __init__(self, config: RunConfig, classes: Sequence[str]) -> None:
        """`classes`: those that the logits are of."""
        assert isinstance(config.loss, ImageLossConfig)
        self.config = config
        self.classes = tuple(classes)
        self.loss_config = config.loss
        self.several = config.loss.name == "bce"

    @abstractmethod
    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """`[B, C]`."""

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """`logits` float32 `[C]` of each sample."""
        return [{"logits": row} for row in self.logits(model, batch).float().cpu().numpy()]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 `[n, C]`: of the classes together, or of each on its own."""
        return 1 / (1 + np.exp(-logits.astype(np.float64))) if self.several else metric.softmax(logits)


class LabelTask(LabelModel):
    """A task whose samples are of classes: `Batch.targets["classes"]` is float `[B, C]`.

    Attributes:
        noun: what a sample is called.
        val: (name, number of samples) of each validation dataset.
        val_truth: bool `[n, C]` of each of them.
        val_annotated: bool `[datasets, C]`: the classes that each of them labels.
    """

    noun = "samples"
    val: list[tuple[str, int]]
    val_truth: list[np.ndarray]
    val_annotated: np.ndarray
    monitors: tuple[str, ...]

    def prepare(self, truth: Sequence[np.ndarray]) -> None:
        """Weights of the loss, from the training samples' truth, bool `[n, C]` of each dataset."""
        counts = sum((t.sum(0) for t in truth), start=np.zeros(len(self.classes), np.int64))
        total = sum(len(t) for t in truth)
        self._weights = class_weights(self.loss_config.class_weights, counts)
        balanced = tuple(((total - counts) / np.maximum(counts, 1)).tolist())
        wanted = self.loss_config.pos_weight
        self._pos_weight = None if wanted == "none" else torch.tensor(balanced if wanted == "balanced" else wanted)

    def stream(self, truth: Sequence[np.ndarray]) -> DistributedWeightedSampler:
        """The sampler that `data.balance` asks for, over samples with this truth, bool `[n, C]` of each dataset."""
        balance = self.config.data.balance
        sizes = [len(t) for t in truth]
        if balance == "none":
            return build_sampler(self.config, sizes)
        if self.several:
            raise UserError(f"data.balance: {self.noun} of several classes cannot be balanced; use loss.pos_weight=balanced")
        weights, epoch = balanced_weights([t.argmax(1) for t in truth], balance)
        return build_sampler(self.config, sizes, weights, epoch)

    def learn(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and targets `[B, C]` of a training batch."""
        return self.logits(model, batch), batch.targets["classes"]

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Summed loss of a micro batch."""
        loss = self.loss_config
        try:
            logits, classes = self.learn(model, batch)
        except ValueError as e:
            if "more than 1 value per channel" not in str(e):
                raise
            size = self.config.data.image_size
            raise UserError(
                f"train.micro_batch: at data.image_size={size} the network makes a single pixel of an image, and a batch norm "
                "cannot learn from a single one; make micro batches of 2 or more, or larger images"
            ) from None
        if self.several:
            each, normalizer = binary_cross_entropy(logits, classes, batch.annotated, _on(self._pos_weight, logits))
        else:
            gamma = loss.gamma if loss.name == "focal" else None
            each, normalizer = cross_entropy(logits, classes, _on(self._weights, logits), loss.label_smoothing, gamma)
        return LossSum(each.sum(), normalizer, {loss.name: each.sum().detach()}, each.detach())

    def metrics(self, predictions: Sequence[Mapping[int, Prediction]]) -> dict[str, float]:
        """See `metrics.classification`; in all, and of each dataset."""
        logits = [self._logits(found) for found in predictions]
        out = self._score(logits, range(len(logits)))
        for number, (name, _) in enumerate(self.val):
            own = self._score(logits, [number])
            out |= {f"dataset/{name}/{k}": v for k, v in own.items() if not k.startswith("class/")}
        return out

    def _score(self, logits: Sequence[np.ndarray], which: Sequence[int] | range) -> dict[str, float]:
        joined, truth = np.concatenate([logits[i] for i in which]), np.concatenate([self.val_truth[i] for i in which])
        if not self.several:
            return metric.single_label(joined, truth.argmax(1), self.classes)
        known = np.concatenate([np.tile(self.val_annotated[i], (len(logits[i]), 1)) for i in which])
        return metric.multi_label(joined, truth, known, self.classes)

    def _logits(self, found: Mapping[int, Prediction]) -> np.ndarray:
        return np.stack([found[index]["logits"] for index in sorted(found)])

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """The main metrics of each dataset and of all together."""
        keys = [k for k in ("accuracy", "top5", "balanced_accuracy", "f1", "AP", "auc", "loss") if k in metrics]
        rows: list[list[Any]] = [[name, n, *(metrics.get(f"dataset/{name}/{k}") for k in keys)] for name, n in self.val]
        rows.append(["all", sum(n for _, n in self.val), *(metrics.get(k) for k in keys)])
        return ["dataset", self.noun, *keys], rows

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        """A classifier that answers the same to everything is named."""
        answer = metric.constant_answer(metrics, self.classes, "recall", "balanced_accuracy", COLLAPSED)
        if answer is None:
            return []
        share = metrics["one_answer"]
        return [
            f"the classifier has collapsed: it answers {answer} for {share:.0%} of the {self.noun}; its accuracy of "
            f"{metrics['accuracy']:.1%} is that class's share, its balanced accuracy is {metrics['balanced_accuracy']:.1%}"
        ]

    def report(
        self, folder: Path, predictions: Sequence[Mapping[int, Prediction]], history: Mapping[str, Sequence[float]]
    ) -> None:
        """Curves, confusion matrix, distributions of probabilities, precision over recall, and all numbers as text."""
        logits = np.concatenate([self._logits(found) for found in predictions])
        truth = np.concatenate(self.val_truth)
        p, k = self.probabilities(logits), len(self.classes)
        report.training_curves(folder / "training_curves.png", history, list(dict.fromkeys(self.monitors)))
        matrix = None if self.several else metric.confusion_matrix(truth.argmax(1), p.argmax(1), k)
        curves = {c: metric.precision_recall(p[:, i], truth[:, i]) for i, c in enumerate(self.classes)}
        report.classification(folder, p, truth, self.classes, matrix, curves)
        text = self.metrics(predictions)
        report.text(folder / "evaluation_report.txt", *self.summary(text), text, self.remarks(text))


def _on(weights: Tensor | None, logits: Tensor) -> Tensor | None:
    return None if weights is None else weights.to(logits.device)

"""The loss and the metrics of tasks whose network gives logits over classes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.config import ClassificationRun, InteractionRun
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.data.stream.weights import balanced_weights
from ddptrain.errors import UserError
from ddptrain.losses.image_labels import binary_cross_entropy, class_weights, cross_entropy
from ddptrain.metrics import classification as metric
from ddptrain.metrics.curves import Calibration, calibration
from ddptrain.metrics.outcome import CountOutcome
from ddptrain.structures import Batch, LossSum, SampleKey
from ddptrain.system.printable import first_few
from ddptrain.tasks.base import Prediction, Predictions
from ddptrain.tasks.stream import build_sampler, shares_of
from ddptrain.tasks.tables import TableTask


class Answers(NamedTuple):
    """What a model says of the validation samples, and what is true.

    Attributes:
        p: float64 `[n, C]`, see `probabilities`.
        truth: bool `[n, C]`.
        known: bool `[n, C]`: what can be scored; all, but where samples have several classes those that their dataset labels.
    """

    p: np.ndarray
    truth: np.ndarray
    known: np.ndarray

    def of(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Probability and truth of a class, `[m]`, in the samples in which it is known."""
        rows = self.known[:, k]
        return self.p[rows, k], self.truth[rows, k]


class LogitsTask(TableTask):
    """A task whose samples have classes: `Batch.targets["classes"]` is float `[B, C]`.

    Attributes:
        noun: what a sample is called.
        several: a sample may have any number of classes, each is learned on its own (loss `bce`).
        val_truth: bool `[n, C]` of each validation dataset.
        val_annotated: bool `[datasets, C]`: the classes that each of them labels.
    """

    config: ClassificationRun | InteractionRun
    noun = "samples"
    val_truth: Sequence[np.ndarray]
    val_annotated: np.ndarray

    def __init__(self, config: ClassificationRun | InteractionRun) -> None:
        super().__init__(config)
        self.loss_config = config.loss
        self.several = self.masked = config.loss.name == "bce"
        if "balanced" not in (config.loss.class_weights, config.loss.pos_weight):  # which `read` counts
            self._weigh((), ())

    @abstractmethod
    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """`[B, C]`."""

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """`logits` float32 `[C]` of each sample."""
        return [{"logits": row} for row in self.logits(model, batch).float().cpu().numpy()]

    def _weigh(self, truth: Sequence[np.ndarray], known: Sequence[np.ndarray]) -> None:
        """Set the weights of the loss.

        Args:
            truth: bool `[n, C]` of the training samples of each dataset that is drawn from.
            known: bool `[C]`: the classes that each of them labels.
        """
        none = np.zeros(len(self.classes), np.int64)
        self._weights = class_weights(self.loss_config.class_weights, sum((t.sum(0) for t in truth), start=none))
        positive = sum((t.sum(0) * k for t, k in zip(truth, known)), start=none)
        negative = sum(((~t).sum(0) * k for t, k in zip(truth, known)), start=none)
        balanced = tuple((negative / np.maximum(positive, 1)).tolist())
        weights = self.loss_config.pos_weight
        self._pos_weight = None if weights == "none" else torch.tensor(balanced if weights == "balanced" else weights)

    def _sample(self, truth: Sequence[np.ndarray]) -> DistributedWeightedSampler:
        """The sampler that `data.balance` asks for, over training samples with this truth."""
        balance = self.config.data.balance
        sizes = [len(t) for t in truth]
        if balance == "none":
            return build_sampler(self.config, sizes)
        if self.several:
            raise UserError(f"data.balance: {self.noun} of several classes cannot be balanced; use loss.pos_weight=balanced")
        used = [i for i, d in enumerate(self.config.data.train) if d.share != 0]
        labels = [truth[i].argmax(1) for i in used]
        balanced, epoch = balanced_weights(labels, balance)
        self.notes += [f"warning: {line}" for line in self._undone(labels, balanced, used)]
        weights: list[np.ndarray | None] = [None] * len(truth)
        for i, own in zip(used, balanced):
            weights[i] = own
        return build_sampler(self.config, sizes, weights, epoch)

    def _undone(self, labels: Sequence[np.ndarray], weights: Sequence[np.ndarray], used: Sequence[int]) -> list[str]:
        """A warning where the shares of the datasets draw some classes more often than others in spite of `data.balance`."""
        shares = shares_of(self.config.data.train)
        if not shares:
            return []
        parts = np.zeros(len(self.classes))
        for i, k, w in zip(used, labels, weights):
            parts += shares[i] / sum(shares) * np.bincount(k, w / w.sum(), len(parts))
        drawn = np.flatnonzero(parts)
        if np.ptp(parts[drawn]) < 0.005:
            return []
        text = first_few([f"{self.classes[k]} {parts[k]:.1%}" for k in drawn.tolist()], "class")
        return [
            f"data.balance: the shares of data.train take precedence, so the classes are not drawn equally often: {text}; "
            "remove share to balance over all datasets"
        ]

    def learn(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and targets `[B, C]` of a training batch."""
        return self.logits(model, batch), batch.targets["classes"]

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        loss = self.loss_config
        logits, classes = self.learn(model, batch)
        # to the device once: it is no copy there
        self._weights, self._pos_weight = _on(self._weights, logits), _on(self._pos_weight, logits)
        if self.several:
            each, normalizer = binary_cross_entropy(logits, classes, batch.annotated, self._pos_weight)
        else:
            gamma = loss.gamma if loss.name == "focal" else None
            each, normalizer = cross_entropy(logits, classes, self._weights, loss.label_smoothing, gamma)
        return LossSum.of({loss.name: each}, normalizer, batch.weights)

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """See `metrics.classification`; in all, and of each dataset."""
        logits = [stacked(of_dataset) for of_dataset in predictions]
        metrics = self._score(logits, range(len(logits)))
        for number, (name, _) in enumerate(self.val):
            own = self._score(logits, [number])
            metrics |= {f"dataset/{name}/{k}": v for k, v in own.items() if not k.startswith("class/")}
        return metrics

    def outcome(self, predictions: Predictions, metrics: Mapping[str, float], about: Mapping[str, Any]) -> CountOutcome:
        """By image: samples of one image, such as the pairs of a panorama, are not independent of each other."""
        described = self.described(metrics, about)
        first = np.searchsorted(described["dataset"], np.arange(len(self.val)))
        counts = np.zeros((3, len(described["images"]), len(self.classes)), np.int64)
        for number, of_dataset in enumerate(predictions):
            logits, real = stacked(of_dataset), self.val_truth[number]
            answers = logits >= 0 if self.several else np.eye(logits.shape[1], dtype=bool)[logits.argmax(1)]
            known = self.val_annotated[number] if self.several else True
            image = first[number] + np.array([self.val_samples.file_of(SampleKey(0, number, i)) for i in sorted(of_dataset)])
            for count, column in zip(counts, (real & answers, real, answers)):
                np.add.at(count, image, column & known)
        names = ["f1", "f1_micro"] if self.several else ["accuracy", "balanced_accuracy", "f1"]
        names.sort(key=lambda name: name != self.monitors[0])  # the run's own first
        return CountOutcome(names=tuple(names), counts=counts, **described)

    def _score(self, logits: Sequence[np.ndarray], which: Sequence[int] | range) -> dict[str, float]:
        joined, truth = np.concatenate([logits[i] for i in which]), np.concatenate([self.val_truth[i] for i in which])
        if not self.several:
            return metric.single_label(joined, truth.argmax(1), self.classes)
        return metric.multi_label(joined, truth, self._known(which), self.classes)

    def _known(self, which: Sequence[int] | range) -> np.ndarray:
        """bool `[n, C]`: of the samples of some validation datasets, the classes that those label."""
        return np.concatenate([np.tile(self.val_annotated[i], (len(self.val_truth[i]), 1)) for i in which])

    def answers(self, predictions: Predictions) -> Answers:
        """Those to all validation samples, dataset after dataset."""
        truth = np.concatenate(self.val_truth)
        known = self._known(range(len(self.val_truth))) if self.several else np.ones_like(truth)
        p = probabilities(np.concatenate([stacked(of_dataset) for of_dataset in predictions]), self.several)
        return Answers(p, truth & known, known)

    def calibration(self, answers: Answers) -> Calibration:
        """Of the most probable classes, or where a sample may have several classes of all known probabilities."""
        p, truth, known = answers
        best = known if self.several else (np.arange(len(p)), p.argmax(1))
        return calibration(p[best], truth[best])


def stacked(predictions: Mapping[int, Prediction]) -> np.ndarray:
    """Logits `[n, C]` of the samples of a dataset, in their order."""
    return np.stack([predictions[index]["logits"] for index in sorted(predictions)])


def probabilities(logits: np.ndarray, several: bool) -> np.ndarray:
    """float64 `[n, C]`: of the classes together, or with `several` of each on its own."""
    return 1 / (1 + np.exp(-logits.astype(np.float64))) if several else metric.softmax(logits)


def _on(weights: Tensor | None, logits: Tensor) -> Tensor | None:
    return None if weights is None else weights.to(logits.device)

"""Classification: what a whole image shows, one class or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.config import ClassifierConfig, ImageLossConfig, LeNetConfig, RunConfig, SmallResNetConfig
from ddptrain.data.balance import balanced_weights
from ddptrain.data.classification import ClassificationSamples
from ddptrain.data.formats.labelled import read_labelled
from ddptrain.data.image_table import ImageTable, apply_labels
from ddptrain.data.images import BadImage, read_image
from ddptrain.data.labels import LabelSpace
from ddptrain.data.sampler import DistributedWeightedSampler
from ddptrain.data.samples import draw_matrix, view
from ddptrain.errors import UserError
from ddptrain.losses.image_labels import binary_cross_entropy, class_weights, cross_entropy, mix
from ddptrain.metrics import classification as metric
from ddptrain.models.classifiers import build_classifier
from ddptrain.monitor import pictures, report
from ddptrain.structures import Batch, LossSum, Sample
from ddptrain.tasks.base import Prediction
from ddptrain.tasks.stream import build_partners, build_sampler

COLLAPSED = 0.97
"""Part of the images with one and the same answer, from which on a classifier is said to have collapsed."""
PICTURE_SIDE = 192


class ClassificationModel:
    """The half of the task that needs no datasets."""

    def __init__(self, config: RunConfig) -> None:
        assert isinstance(config.loss, ImageLossConfig)
        self.config = config
        self.classes = config.classes
        self.loss_config = config.loss
        self.several = config.loss.name == "bce"

    def build_model(self) -> nn.Module:
        """The network of `config.model`."""
        model = self.config.model
        assert isinstance(model, (ClassifierConfig, LeNetConfig, SmallResNetConfig))
        return build_classifier(model, len(self.classes), self.config.data.image_size)

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """`logits` float32 `[C]` of each image."""
        return [{"logits": row} for row in model(batch.images.float() / 255).float().cpu().numpy()]

    def predict_file(
        self, model: nn.Module, path: Path, device: torch.device, score: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """The probability of every class, most probable first, and the picture with those of at least `score`."""
        try:
            image = read_image(str(path))
        except BadImage as e:
            raise UserError(str(e)) from None
        size = self.config.data.image_size
        seen = view(image, draw_matrix((image.shape[1], image.shape[0]), size, None, 0, 0), size, None, 0, 0)
        logits = model(torch.from_numpy(seen).permute(2, 0, 1)[None].to(device).float() / 255).float().cpu().numpy()
        p = self.probabilities(logits)[0]
        order = np.argsort(-p, kind="stable").tolist()
        rows = [{"class": self.classes[k], "probability": round(float(p[k]), 5)} for k in order]
        shown = "  ".join(f"{self.classes[k]} {p[k]:.2f}" for k in order[:5] if p[k] >= score)
        return {"width": image.shape[1], "height": image.shape[0], "classes": rows}, self._titled(image, shown)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 `[n, C]`: of the classes together, or of each on its own."""
        return 1 / (1 + np.exp(-logits.astype(np.float64))) if self.several else metric.softmax(logits)

    def _titled(self, image: np.ndarray, title: str) -> np.ndarray:
        return pictures.draw(image, [], [], self.classes, title=title, min_side=PICTURE_SIDE)


class ClassificationTask(ClassificationModel):
    """See `tasks.base.Task` for what each member means."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.notes: list[str] = []
        tables, space = self._tables("train")
        self.val_tables, self.val_space = self._tables("val")
        self.monitors = ("AP" if self.several else "accuracy", "loss", "f1", "balanced_accuracy", "auc", "AP", "accuracy")
        self.counts = sum((t.truth().sum(0) for t in tables), start=np.zeros(len(self.classes), np.int64))
        self.sampler = self._sampler(tables)
        data = config.data
        partners = build_partners(config, self.sampler, data.augment.mixup + data.augment.cutmix)
        self.train = ClassificationSamples(tables, space.annotated, data.image_size, data.augment, config.seed, partners)
        self.val_samples = ClassificationSamples(self.val_tables, self.val_space.annotated, data.image_size, None)
        self.val = [(d.name, len(t)) for d, t in zip(data.val, self.val_tables)]
        self._weights = class_weights(self.loss_config.class_weights, self.counts)
        total = sum(len(t) for t in tables)
        balanced_pos = tuple(((total - self.counts) / np.maximum(self.counts, 1)).tolist())
        wanted = self.loss_config.pos_weight
        self._pos_weight = None if wanted == "none" else torch.tensor(balanced_pos if wanted == "balanced" else wanted)

    def _tables(self, part: str) -> tuple[list[ImageTable], LabelSpace]:
        datasets = getattr(self.config.data, part)
        tables = []
        for d in datasets:
            table, faults = read_labelled(d, self.config.data.on_fault)
            tables.append(table)
            self.notes.append(f"{part} {d.name}: {len(table)} images, {len(table.names)} classes; {faults.text()}")
        space = LabelSpace.build(self.config.classes, datasets, tables)
        mapped = [apply_labels(space, t) for t in tables]
        for table in mapped:
            wrong = np.flatnonzero(np.diff(table.offsets) != 1)
            if len(wrong) and not self.several:
                number = int(np.diff(table.offsets)[wrong[0]])
                raise UserError(
                    f"{table.name}: {table.path(int(wrong[0]))} has {number} classes, and {len(wrong)} images like it have not "
                    "one; correct the labels, or learn several classes with loss.name=bce"
                )
            if not len(table):
                raise UserError(f"{table.name}: no image is left after its classes were mapped; check rename, ignore and drop")
        return mapped, space

    def _sampler(self, tables: Sequence[ImageTable]) -> DistributedWeightedSampler:
        balance = self.config.data.balance
        sizes = [len(t) for t in tables]
        if balance == "none":
            return build_sampler(self.config, sizes)
        if self.several:
            raise UserError("data.balance: images of several classes cannot be balanced; use loss.pos_weight=balanced")
        weights, epoch = balanced_weights([t.labels for t in tables], balance)
        return build_sampler(self.config, sizes, weights, epoch)

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Summed loss of a micro batch, of mixed images where the config asks for them."""
        t, loss = batch.targets, self.loss_config
        images, classes = batch.images.float() / 255, t["classes"]
        if "partner" in t:
            images, classes = mix(images, classes, t["partner"].float() / 255, t["partner_classes"], t["part"], t["box"])
        logits = model(images)
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
        joined, truth = np.concatenate([logits[i] for i in which]), np.concatenate([self.val_tables[i].truth() for i in which])
        if not self.several:
            return metric.single_label(joined, truth.argmax(1), self.classes)
        known = np.concatenate([np.tile(self.val_space.annotated[i], (len(logits[i]), 1)) for i in which])
        return metric.multi_label(joined, truth, known, self.classes)

    def _logits(self, found: Mapping[int, Prediction]) -> np.ndarray:
        return np.stack([found[index]["logits"] for index in sorted(found)])

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """The image under the names of its classes; with a prediction, that in brackets."""
        title = ", ".join(self.classes[k] for k in np.flatnonzero(sample.targets["classes"])) or "none"
        if prediction is not None:
            p = self.probabilities(prediction["logits"][None])[0]
            title += f" ({self.classes[int(p.argmax())]} {p.max():.2f})"
        return self._titled(sample.image, title)

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """The main metrics of each dataset and of all together."""
        keys = [k for k in ("accuracy", "top5", "balanced_accuracy", "f1", "AP", "auc", "loss") if k in metrics]
        rows: list[list[Any]] = [[name, n, *(metrics.get(f"dataset/{name}/{k}") for k in keys)] for name, n in self.val]
        rows.append(["all", sum(n for _, n in self.val), *(metrics.get(k) for k in keys)])
        return ["dataset", "images", *keys], rows

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        """A classifier that answers the same to everything is named."""
        share = metrics.get("one_answer", 0.0)
        recall = {c: metrics.get(f"class/{c}/recall", float("nan")) for c in self.classes}
        there = [c for c in self.classes if not np.isnan(recall[c])]
        if share < COLLAPSED or len(there) < 2 or metrics["balanced_accuracy"] > 1 / len(there) + 0.05:
            return []
        answer = max(there, key=lambda c: recall[c])
        return [
            f"the classifier has collapsed: it answers {answer} for {share:.0%} of the images; its accuracy of "
            f"{metrics['accuracy']:.1%} is that class's share, its balanced accuracy is {metrics['balanced_accuracy']:.1%}"
        ]

    def report(
        self, folder: Path, predictions: Sequence[Mapping[int, Prediction]], history: Mapping[str, Sequence[float]]
    ) -> None:
        """Curves, confusion matrix, distributions of probabilities, precision over recall, and all numbers as text."""
        logits = np.concatenate([self._logits(found) for found in predictions])
        truth = np.concatenate([t.truth() for t in self.val_tables])
        p, k = self.probabilities(logits), len(self.classes)
        report.training_curves(folder / "training_curves.png", history, list(dict.fromkeys(self.monitors)))
        matrix = None if self.several else metric.confusion_matrix(truth.argmax(1), p.argmax(1), k)
        curves = {c: metric.precision_recall(p[:, i], truth[:, i]) for i, c in enumerate(self.classes)}
        report.classification(folder, p, truth, self.classes, matrix, curves)
        text = self.metrics(predictions)
        report.text(folder / "evaluation_report.txt", *self.summary(text), text, self.remarks(text))


def _on(weights: Tensor | None, logits: Tensor) -> Tensor | None:
    return None if weights is None else weights.to(logits.device)

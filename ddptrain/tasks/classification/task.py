"""Classification: what a whole image shows, one class or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.config import ClassificationRun
from ddptrain.data.augment.view import ImageView
from ddptrain.data.formats.labelled import read_labelled
from ddptrain.data.samples.classification import ClassificationSamples
from ddptrain.data.tables.images import ImageTable
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.errors import UserError
from ddptrain.losses.image_labels import mix
from ddptrain.models.classifiers import build_classifier
from ddptrain.structures import Batch
from ddptrain.system.printable import counted
from ddptrain.tasks.base import FileAnswer, Prediction
from ddptrain.tasks.classification.view import ClassificationView, titled
from ddptrain.tasks.inspection.base import DataSet, Part
from ddptrain.tasks.logits.task import LogitsTask, probabilities
from ddptrain.tasks.tables import annotated, loss_weights


class ClassificationTask(LogitsTask):
    """See `tasks.base.Task`."""

    config: ClassificationRun
    noun = "images"
    unit = "image"
    read_table = staticmethod(read_labelled)
    view_class = ClassificationView

    def __init__(self, config: ClassificationRun) -> None:
        super().__init__(config)
        self.monitors = ("AP" if self.several else "accuracy", "loss", "f1", "balanced_accuracy", "auc", "AP", "accuracy")

    def read(self) -> None:
        data = self.config.data
        train, val = self.datasets("train"), self.datasets("val")
        self.accept(train, val)
        tables, val_tables = [s.table for s in train], [s.table for s in val]
        truth = [t.truth() for t in tables]
        self._weigh([t for t, s in zip(truth, train) if s.used], [s.annotated for s in train if s.used])
        self.sampler = self._sample(truth)
        partners = self.partners(data.augment, "mixup", "cutmix")
        self.val_truth, self.val_annotated = [t.truth() for t in val_tables], annotated(val)
        self.train = ClassificationSamples(
            tables, annotated(train), data.image_size, data.augment, self.config.seed, partners, weights=loss_weights(train)
        )
        self.val_samples = ClassificationSamples(val_tables, self.val_annotated, data.image_size, None)

    def apply(self, space: LabelSpace, table: ImageTable, part: Part) -> tuple[ImageTable, str]:
        learned, _ = super().apply(space, table, part)
        gone = len(table) - len(learned)
        return learned, f"{counted(gone, 'image')} whose classes are all ignored or dropped" if gone else ""

    def notes_on(self, data: DataSet) -> list[str]:
        table: ImageTable = data.table
        counts = np.diff(table.offsets)
        wrong = np.flatnonzero(counts != 1)
        if len(wrong) and not self.several:
            raise UserError(
                f"{table.name}: {counted(len(wrong), 'image does', 'images do')} not have exactly one class; the first, "
                f"{table.path(int(wrong[0]))}, has {counts[wrong[0]]}; correct the labels, or learn several classes with "
                "loss.name=bce"
            )
        if not len(table):
            raise UserError(f"{table.name}: no images are left after its classes are mapped; check rename, ignore and drop")
        left_out = [f"{data.title}: left out: {data.left_out}"] if data.left_out else []
        return super().notes_on(data) + left_out

    def facts(self, data: DataSet) -> dict[str, Any]:
        counts = np.diff(data.table.offsets)
        none, several = int((counts == 0).sum()), int((counts > 1).sum())
        return {"learned": len(counts), "without_class": none, "several_classes": several}

    def build_model(self) -> nn.Module:
        return build_classifier(self.config.model, len(self.classes), self.config.data.image_size)

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = model(batch.unit_images())
        return logits

    def learn(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and targets of a batch, of mixed images where the config asks for them."""
        t = batch.targets
        if "partner" not in t:
            return super().learn(model, batch)
        images, partner = batch.unit_images(), t["partner"].float() / 255
        images, classes = mix(images, t["classes"], partner, t["partner_classes"], t["part"], t["box"])
        return model(images), classes

    def predict_image(self, model: nn.Module, image: np.ndarray, device: torch.device, path: Path | None = None) -> Prediction:
        """`probabilities` float32 `[classes]`."""
        seen, _ = ImageView.still(self.config.data.image_size).show(image)
        logits = model(torch.from_numpy(seen).permute(2, 0, 1)[None].to(device).float() / 255).float().cpu().numpy()
        return {"probabilities": probabilities(logits, self.several)[0].astype(np.float32)}

    def predict_file(self, model: nn.Module, path: Path, device: torch.device, score: float) -> FileAnswer:
        """The probability of every class, most probable first, and the picture with those of at least `score`."""
        image = self.read_file(path)
        p = self.predict_image(model, image, device)["probabilities"]
        order = np.argsort(-p, kind="stable").tolist()
        rows = [{"class": self.classes[k], "probability": round(float(p[k]), 5)} for k in order]
        title = "  ".join(f"{self.classes[k]} {p[k]:.2f}" for k in order[:5] if p[k] >= score)
        return {"width": image.shape[1], "height": image.shape[0], "classes": rows}, titled(image, title)

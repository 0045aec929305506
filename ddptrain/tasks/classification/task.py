"""Classification: what a whole image shows, one class or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.config import ClassifierConfig, LeNetConfig, RunConfig, SmallResNetConfig
from ddptrain.data.augment.view import View
from ddptrain.data.formats.labelled import read_labelled
from ddptrain.data.images.read import BadImage, read_image
from ddptrain.data.samples.classification import ClassificationSamples
from ddptrain.data.tables.contents import Contents
from ddptrain.data.tables.images import ImageTable
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.errors import UserError
from ddptrain.losses.image_labels import mix
from ddptrain.models.classifiers import build_classifier
from ddptrain.reporting import pictures
from ddptrain.structures import Batch, Sample
from ddptrain.tasks.base import Prediction, file_name
from ddptrain.tasks.inspection.base import data_sets
from ddptrain.tasks.inspection.classes import class_warnings, refuse_no_truth
from ddptrain.tasks.labels import LabelModel, LabelTask
from ddptrain.tasks.stream import build_partners, mixing_notes

PICTURE_SIDE = 192


class ClassificationModel(LabelModel):
    """The half of the task that needs no datasets."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config, config.classes)

    def build_model(self) -> nn.Module:
        """The network of `config.model`."""
        model = self.config.model
        assert isinstance(model, (ClassifierConfig, LeNetConfig, SmallResNetConfig))
        return build_classifier(model, len(self.classes), self.config.data.image_size)

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """`[B, C]`."""
        logits: Tensor = model(batch.images.float() / 255)
        return logits

    def predict_file(
        self, model: nn.Module, path: Path, device: torch.device, score: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """The probability of every class, most probable first, and the picture with those of at least `score`."""
        try:
            image = read_image(str(path), self.config.data.exif)
        except BadImage as e:
            raise UserError(str(e)) from None
        seen, _ = View.still(self.config.data.image_size).show(image)
        logits = model(torch.from_numpy(seen).permute(2, 0, 1)[None].to(device).float() / 255).float().cpu().numpy()
        p = self.probabilities(logits)[0]
        order = np.argsort(-p, kind="stable").tolist()
        rows = [{"class": self.classes[k], "probability": round(float(p[k]), 5)} for k in order]
        shown = "  ".join(f"{self.classes[k]} {p[k]:.2f}" for k in order[:5] if p[k] >= score)
        return {"width": image.shape[1], "height": image.shape[0], "classes": rows}, self._titled(image, shown)

    def _titled(self, image: np.ndarray, title: str) -> np.ndarray:
        return pictures.draw(image, [], [], self.classes, title=title, min_side=PICTURE_SIDE)


class ClassificationTask(ClassificationModel, LabelTask):
    """See `tasks.base.Task` for what each member means."""

    noun = "images"

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.notes: list[str] = []
        self.contents: list[Contents] = []
        tables, space = self._tables("train")
        val_tables, val_space = self._tables("val")
        sets = data_sets(config, "train", tables, space.annotated) + data_sets(config, "val", val_tables, val_space.annotated)
        refuse_no_truth(config, sets, "image")
        self.notes += [f"warning: {line}" for line in class_warnings(config, sets, "image", masked=self.several)]
        self.monitors = ("AP" if self.several else "accuracy", "loss", "f1", "balanced_accuracy", "auc", "AP", "accuracy")
        truth = [t.truth() for t in tables]
        self.prepare(truth)
        self.sampler = self.stream(truth)
        data = config.data
        partners = build_partners(config, self.sampler, data.augment.mixup + data.augment.cutmix)
        self.notes += mixing_notes(config, self.sampler.mixture.samples_per_epoch, partners, "mixup", "cutmix")
        self.train = ClassificationSamples(tables, space.annotated, data.image_size, data.augment, config.seed, partners)
        self.val_samples = ClassificationSamples(val_tables, val_space.annotated, data.image_size, None)
        self.val = [(d.name, len(t)) for d, t in zip(data.val, val_tables)]
        self.val_truth, self.val_annotated = [t.truth() for t in val_tables], val_space.annotated

    def _tables(self, part: str) -> tuple[list[ImageTable], LabelSpace]:
        datasets = getattr(self.config.data, part)
        tables = []
        for d in datasets:
            table, faults = read_labelled(d, self.config.data.on_fault)
            tables.append(table)
            self.notes.append(f"{part} {d.name}: {len(table)} images, {len(table.names)} classes; {faults.text()}")
        self.contents += [Contents(part, table) for table in tables]
        space = LabelSpace.build(self.config.classes, datasets, tables)
        mapped = [space.apply(t) for t in tables]
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

    def learn(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and targets of a batch, of mixed images where the config asks for them."""
        t = batch.targets
        if "partner" not in t:
            return super().learn(model, batch)
        images, partner = batch.images.float() / 255, t["partner"].float() / 255
        images, classes = mix(images, t["classes"], partner, t["partner_classes"], t["part"], t["box"])
        return model(images), classes

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """The image under the names of its file and its classes; with a prediction, that in brackets."""
        file = file_name(self.train if prediction is None else self.val_samples, sample)
        title = f"{file}: {', '.join(self.classes[k] for k in np.flatnonzero(sample.targets['classes'])) or 'none'}"
        if prediction is not None:
            p = self.probabilities(prediction["logits"][None])[0]
            title += f" ({self.classes[int(p.argmax())]} {p.max():.2f})"
        return self._titled(sample.image, title)

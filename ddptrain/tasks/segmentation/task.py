"""Segmentation: what every pixel of an image shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.config import PixelLossConfig, SegmentationRun
from ddptrain.config.batch import evaluated_at_once
from ddptrain.data.augment.geometry import BORDER
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.samples.segmentation import SegmentationSamples, eval_view
from ddptrain.data.tables.windows import cut_images
from ddptrain.errors import UserError
from ddptrain.losses.image_labels import class_weights
from ddptrain.losses.pixels import known_logits, pixel_likelihood
from ddptrain.metrics import miou
from ddptrain.metrics.outcome import CountOutcome
from ddptrain.metrics.pixel_confidence import count_steps
from ddptrain.models.build import SEGMENTERS
from ddptrain.models.segmenter import SegmenterSettings
from ddptrain.models.windows import native_logits, slide
from ddptrain.reporting import masks
from ddptrain.structures import VOID, Batch, LossSum, Sample, SampleKey
from ddptrain.tasks.base import FileAnswer, Prediction, Predictions
from ddptrain.tasks.inspection.base import DataSet, Inspection
from ddptrain.tasks.segmentation.inspect import mask_warnings, report_pixels, values_text
from ddptrain.tasks.segmentation.view import SegmentationView, confusion
from ddptrain.tasks.stream import build_sampler
from ddptrain.tasks.tables import TableTask, annotated, loss_weights

PREVIEW = 256
"""Longest side in pixels of the label map that travels with a prediction, for pictures only."""


class SegmentationTask(TableTask):
    """See `tasks.base.Task`."""

    config: SegmentationRun
    unit = "pixel"
    read_table = staticmethod(read_masks)
    view_class = SegmentationView
    monitors = ("mIoU", "pixel_accuracy", "mean_accuracy", "loss")

    def __init__(self, config: SegmentationRun) -> None:
        super().__init__(config)
        self.slides = config.eval.window == "slide"
        settings = SegmenterSettings(len(config.classes), config.loss, config.seed)
        self.segmenter = SEGMENTERS[config.model.name](config.model, settings)
        if len(self.classes) > VOID:
            raise UserError(f"classes: {len(self.classes)} are listed, and a mask can hold {VOID}")
        weights = config.loss.class_weights if isinstance(config.loss, PixelLossConfig) else "none"
        if weights != "balanced":  # which `read` counts
            self._weights = class_weights(weights, np.zeros(len(self.classes), np.int64))

    def read(self) -> None:
        data = self.config.data
        train, val = self.datasets("train"), self.datasets("val")
        self.accept(train, val)
        tables, val_tables = [s.table for s in train], [s.table for s in val]
        tiles = self.tiles(train, cut_images)
        self.sampler = build_sampler(self.config, [len(t or s.table) for t, s in zip(tiles, train)])
        size, seed, weights = data.image_size, self.config.seed, loss_weights(train)
        self.train = SegmentationSamples(tables, annotated(train), size, data.augment, seed, weights=weights, tiles=tiles)
        self.val_samples = SegmentationSamples(val_tables, annotated(val), data.image_size, None, native=self.slides)
        if isinstance(self.config.loss, PixelLossConfig):
            self._weights = class_weights(
                self.config.loss.class_weights, sum(s.table.pixels[:, :-1].sum(0) for s in train if s.used)
            )

    def notes_on(self, data: DataSet) -> list[str]:
        if not data.table.pixels[:, :-1].any():
            raise UserError(
                f"{data.config.name}: no pixels are left after its classes are mapped; its masks hold "
                f"{values_text(self.classes, data.table)}; check values, void, rename and ignore"
            )
        return super().notes_on(data)

    def facts(self, data: DataSet) -> dict[str, Any]:
        sizes, pixels = data.table.sizes, data.table.pixels
        order = np.argsort(sizes.astype(np.int64).prod(1), kind="stable")
        smallest, largest = (" x ".join(map(str, sizes[i].tolist())) for i in (order[0], order[-1]))
        void = float(pixels[:, -1].sum() / pixels.sum())
        return {"smallest": smallest, "largest": largest, "void": round(void, 6)}

    def warnings(self, sets: Sequence[DataSet]) -> list[str]:
        return super().warnings(sets) + mask_warnings(self.classes, sets)

    def build_model(self) -> nn.Module:
        return self.segmenter.build()

    def logits(self, model: nn.Module, batch: Batch) -> Iterator[Tensor]:
        """Of each image float32 `[C, H, W]`, in pixels of its file."""
        images = batch.unit_images()
        if not self.slides:
            yield from native_logits(model(images)["out"], batch.to_native, batch.native_size)
            return
        size, evaluation = self.config.data.image_size, self.config.eval
        at_once = evaluated_at_once(evaluation.batch, self.config.train.micro_batch)
        for image, (width, height) in zip(images, batch.native_size.tolist()):
            yield slide(model, image[:, :height, :width], size, evaluation.overlap, at_once, BORDER / 255)

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        if self._weights is not None:
            self._weights = self._weights.to(batch.images.device)  # once: it is no copy there
        return self.segmenter.loss(model, batch, self._weights)

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """Of each image `cells` and `pixels` of its confusion matrix, its probabilities (`step_…`, see
        `metrics.pixel_confidence.Steps`), its summed `loss`, and a small PNG of its labels as `preview`. Classes that the
        dataset does not label are neither learned nor predicted there."""
        out: list[Prediction] = []
        sizes = batch.native_size.tolist()
        for i, (logits, (width, height)) in enumerate(zip(self.logits(model, batch), sizes)):
            truth = batch.targets["native_mask"][i, :height, :width]
            known = known_logits(logits[None], batch.annotated[i : i + 1])
            answer, log_p = known[0].argmax(0), known.log_softmax(1)
            loss = pixel_likelihood(log_p, truth[None]).each.double().cpu().numpy()
            steps = count_steps(log_p[0], answer, truth, batch.annotated[i])
            classes = answer.to(torch.uint8).cpu().numpy()
            cells, pixels = miou.count_cells(truth.cpu().numpy(), classes, len(self.classes))
            part = min(1.0, PREVIEW / max(classes.shape))
            side = (max(1, round(width * part)), max(1, round(height * part)))
            small = cv2.resize(classes, side, interpolation=cv2.INTER_NEAREST)
            preview = np.frombuffer(masks.encode_labels(small, len(self.classes)), np.uint8)
            counted = {"cells": cells, "pixels": pixels, **{f"step_{name}": a for name, a in steps._asdict().items()}}
            out.append({**counted, "loss": loss, "preview": preview})
        return out

    def predict_image(self, model: nn.Module, image: np.ndarray, device: torch.device, path: Path | None = None) -> Prediction:
        """`mask` uint8 `[H, W]`, the class of each pixel, and `probabilities` float32 `[H, W]` of it."""
        seen, back = eval_view(image, self.config.data.image_size, self.slides)
        size = (image.shape[1], image.shape[0])
        sample = Sample(SampleKey(0, 0, 0), seen, {}, np.ones(len(self.classes), bool), back, size)
        (logits,) = self.logits(model, SegmentationSamples.collate([sample]).to(device))
        p, classes = logits.softmax(0).max(0)
        return {"mask": classes.to(torch.uint8).cpu().numpy(), "probabilities": p.float().cpu().numpy()}

    def predict_file(self, model: nn.Module, path: Path, device: torch.device, score: float) -> FileAnswer:
        """`mask`, the class of each pixel, and the part of the pixels that each class has; the picture shows the pixels whose
        class has at least the probability `score`."""
        image = self.read_file(path)
        labels, p = self.predict_image(model, image, device).values()
        counts = np.bincount(labels.ravel(), minlength=len(self.classes)) / labels.size
        parts = {self.classes[k]: round(float(counts[k]), 5) for k in np.argsort(-counts, kind="stable") if counts[k]}
        shown = np.where(p >= score, labels, VOID).astype(np.uint8)
        mask = masks.encode_labels(labels, len(self.classes))
        entry = {"width": image.shape[1], "height": image.shape[0], "mask": mask, "classes": parts}
        return entry, masks.overlay(image, shown, self.classes)

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """See `metrics.miou`; in all, and of each dataset; `loss` is the mean cross entropy of a pixel."""
        by_dataset = [[p for _, p in sorted(of_dataset.items())] for of_dataset in predictions]
        metrics = self._score([p for of_dataset in by_dataset for p in of_dataset])
        for (name, _), of_dataset in zip(self.val, by_dataset):
            metrics |= {f"dataset/{name}/{k}": v for k, v in self._score(of_dataset).items()}
        return metrics

    def _score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        matrix = confusion(predictions, len(self.classes))
        total = int(matrix.sum())
        loss = float(np.concatenate([p["loss"] for p in predictions]).sum()) / total if total else float("nan")
        return miou.score(matrix, self.classes) | {"loss": loss}

    def outcome(self, predictions: Predictions, metrics: Mapping[str, float], about: Mapping[str, Any]) -> CountOutcome:
        images = [p for of_dataset in predictions for _, p in sorted(of_dataset.items())]
        counts = np.zeros((3, len(images), len(self.classes)), np.int64)
        for of_image, p in zip(np.moveaxis(counts, 1, 0), images):
            real, answer = np.divmod(p["cells"], len(self.classes))
            for count, classes, pixels in zip(
                of_image, (real, real, answer), (p["pixels"] * (real == answer), *[p["pixels"]] * 2)
            ):
                np.add.at(count, classes, pixels)
        names = ("mIoU", "mean_accuracy", "pixel_accuracy")
        return CountOutcome(names=names, counts=counts, **self.described(metrics, about))

    def inspect_labels(self, sets: Sequence[DataSet], out: Inspection) -> None:
        report_pixels(self.classes, sets, out)
        out.warnings += self.warnings(sets)

"""Segmentation: what every pixel of an image shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.config import Mask2FormerConfig, MaskLossConfig, PixelLossConfig, RunConfig, SegmenterConfig
from ddptrain.data.augment.geometry import BORDER, warp_nearest
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.images.read import BadImage, read_image
from ddptrain.data.samples.segmentation import SegmentationSamples, eval_view
from ddptrain.data.tables.contents import Contents
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.data.tables.masks import MaskTable
from ddptrain.errors import UserError
from ddptrain.losses.image_labels import class_weights
from ddptrain.losses.pixels import dice, known_logits, pixel_cross_entropy
from ddptrain.metrics import miou
from ddptrain.metrics.classification import constant_answer
from ddptrain.models.mask2former.loss import mask_sums
from ddptrain.models.segmenters import build_segmenter
from ddptrain.models.windows import native_logits, slide
from ddptrain.reporting import masks as drawn
from ddptrain.reporting import pictures, report
from ddptrain.seeding import rng
from ddptrain.structures import VOID, Batch, LossSum, Sample, SampleKey
from ddptrain.tasks.base import Prediction, file_name
from ddptrain.tasks.inspection.base import data_sets
from ddptrain.tasks.inspection.classes import class_warnings, refuse_no_truth
from ddptrain.tasks.inspection.masks import mask_warnings, values_text
from ddptrain.tasks.stream import build_sampler

COLLAPSED = 0.9
"""Part of the pixels with one and the same answer, from which on a segmenter is said to have collapsed."""
PREVIEW = 256
"""Longest side in pixels of the label map that travels with a prediction, for pictures only."""
TABLED = 30
"""Classes that have a row of their own in the table of an evaluation; history.csv and the report hold any number."""
WORST = 6
"""Images with the lowest IoU that the report shows, and as many with the highest."""


class SegmentationModel:
    """The half of the task that needs no datasets."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.classes = config.classes
        self.slides = config.eval.window == "slide"
        if len(self.classes) > VOID:
            raise UserError(f"classes: {len(self.classes)} classes; a mask has room for {VOID}")

    def build_model(self) -> nn.Module:
        """The network of `config.model`."""
        model = self.config.model
        assert isinstance(model, (SegmenterConfig, Mask2FormerConfig))
        return build_segmenter(model, len(self.classes))

    def logits(self, model: nn.Module, batch: Batch) -> Iterator[Tensor]:
        """Of each image float32 `[C, H, W]`, in pixels of its file."""
        images = batch.images.float() / 255
        if not self.slides:
            yield from native_logits(model(images)["out"], batch.to_native, batch.native_size)
            return
        size, evaluation = self.config.data.image_size, self.config.eval
        at_once = evaluation.batch or self.config.train.micro_batch
        for image, (width, height) in zip(images, batch.native_size.tolist()):
            yield slide(model, image[:, :height, :width], size, evaluation.overlap, at_once, BORDER / 255)

    def predict_file(
        self, model: nn.Module, path: Path, device: torch.device, score: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """`mask`, the class of each pixel, and the part of the pixels that each class has; the picture shows the pixels whose
        class has at least the probability `score`."""
        try:
            image = read_image(str(path), self.config.data.exif)
        except BadImage as e:
            raise UserError(str(e)) from None
        seen, back = eval_view(image, self.config.data.image_size, self.slides)
        size = (image.shape[1], image.shape[0])
        sample = Sample(SampleKey(0, 0, 0), seen, {}, np.ones(len(self.classes), bool), back, size)
        (logits,) = self.logits(model, SegmentationSamples.collate([sample]).to(device))
        p, found = logits.softmax(0).max(0)
        labels = found.to(torch.uint8).cpu().numpy()
        counts = np.bincount(labels.ravel(), minlength=len(self.classes)) / labels.size
        parts = {self.classes[k]: round(float(counts[k]), 5) for k in np.argsort(-counts, kind="stable") if counts[k]}
        shown = np.where(p.cpu().numpy() >= score, labels, VOID).astype(np.uint8)
        said = {"width": size[0], "height": size[1], "mask": drawn.encode_labels(labels, len(self.classes)), "classes": parts}
        return said, drawn.overlay(image, shown, self.classes)


class SegmentationTask(SegmentationModel):
    """See `tasks.base.Task` for what each member means."""

    monitors = ("mIoU", "pixel_accuracy", "mean_accuracy", "loss")

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.notes: list[str] = []
        self.contents: list[Contents] = []
        tables, space = self._tables("train")
        val_tables, val_space = self._tables("val")
        sets = data_sets(config, "train", tables, space.annotated) + data_sets(config, "val", val_tables, val_space.annotated)
        refuse_no_truth(config, sets, "pixel")
        told = class_warnings(config, sets, "pixel") + mask_warnings(config, sets)
        self.notes += [f"warning: {line}" for line in told]
        data = config.data
        self.sampler = build_sampler(config, [len(t) for t in tables])
        self.train = SegmentationSamples(tables, space.annotated, data.image_size, data.augment, config.seed)
        self.val_samples = SegmentationSamples(val_tables, val_space.annotated, data.image_size, None, native=self.slides)
        self.val = [(d.name, len(t)) for d, t in zip(data.val, val_tables)]
        wanted = config.loss.class_weights if isinstance(config.loss, PixelLossConfig) else "none"
        self._weights = class_weights(wanted, sum(t.pixels[:, :-1].sum(0) for t in tables))

    def _tables(self, part: str) -> tuple[list[MaskTable], LabelSpace]:
        datasets = getattr(self.config.data, part)
        tables = []
        for d in datasets:
            table, faults = read_masks(d, self.config.data.on_fault)
            tables.append(table)
            self.notes.append(f"{part} {d.name}: {len(table)} images, {len(table.names)} classes; {faults.text()}")
        self.contents += [Contents(part, table) for table in tables]
        space = LabelSpace.build(self.config.classes, datasets, tables)
        mapped = [space.apply(t) for t in tables]
        for table in mapped:
            if not table.pixels[:, :-1].any():
                raise UserError(
                    f"{table.name}: no pixel is left after its classes were mapped; its masks hold "
                    f"{values_text(self.config.classes, table)}; check values, void, rename and ignore"
                )
        return mapped, space

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Summed loss of a micro batch."""
        said = model(batch.images.float() / 255)
        loss = self.config.loss
        return self._mask_loss(said, batch, loss) if isinstance(loss, MaskLossConfig) else self._pixel_loss(said, batch)

    def _pixel_loss(self, said: Mapping[str, Tensor], batch: Batch) -> LossSum:
        """All divide by the pixels of the step (or their classes' weights): the Dice loss of an image counts as often as it
        has pixels, so that one number serves both terms."""
        loss, mask = self.config.loss, batch.targets["mask"]
        assert isinstance(loss, PixelLossConfig)
        weights = None if self._weights is None else self._weights.to(mask.device)
        parts: dict[str, Tensor] = {}
        counts = mask.new_zeros(len(mask), dtype=torch.float32)
        for head, gain in (("out", 1.0), ("aux", loss.aux)):
            if head not in said:
                continue
            logits = known_logits(said[head], batch.annotated)
            cross_entropy, counts = pixel_cross_entropy(logits, mask, weights)
            terms = {"cross_entropy": loss.cross_entropy * cross_entropy}
            if loss.dice:
                terms["dice"] = loss.dice * dice(logits, mask) * counts
            parts |= terms if head == "out" else {"aux": gain * sum(terms.values(), start=counts * 0)}
        return _sums(parts, counts)

    def _mask_loss(self, said: Mapping[str, Any], batch: Batch, loss: MaskLossConfig) -> LossSum:
        mask = batch.targets["mask"]
        generators = [
            torch.Generator(mask.device).manual_seed(int(rng(self.config.seed, position, "mask points").integers(2**62)))
            for position in batch.keys[:, 0].tolist()
        ]
        sums = mask_sums(said["classes"], said["masks"], mask, batch.annotated, generators, loss)
        return _sums({"cls": sums.cls, "mask": sums.mask, "dice": sums.dice}, sums.masks)

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """Of each image `cells` and `pixels` of its confusion matrix, its summed `loss`, and a small PNG of its labels as
        `preview`. Classes that the dataset does not label are neither learned nor predicted there."""
        out: list[Prediction] = []
        for i, logits in enumerate(self.logits(model, batch)):
            width, height = batch.native_size[i].tolist()
            truth = batch.targets["native_mask"][i, :height, :width]
            known = known_logits(logits[None], batch.annotated[i : i + 1])
            loss = pixel_cross_entropy(known, truth[None]).each.double().cpu().numpy()
            found = known[0].argmax(0).to(torch.uint8).cpu().numpy()
            cells, pixels = miou.count_cells(truth.cpu().numpy(), found, len(self.classes))
            part = min(1.0, PREVIEW / max(found.shape))
            small = cv2.resize(found, None, fx=part, fy=part, interpolation=cv2.INTER_NEAREST)
            preview = np.frombuffer(drawn.encode_labels(small, len(self.classes)), np.uint8)
            out.append({"cells": cells, "pixels": pixels, "loss": loss, "preview": preview})
        return out

    def metrics(self, predictions: Sequence[Mapping[int, Prediction]]) -> dict[str, float]:
        """See `metrics.miou`; in all, and of each dataset; `loss` is the mean cross entropy of a pixel."""
        matrices = [self._matrix(found) for found in predictions]
        out = self._score(np.sum(matrices, 0), [p for found in predictions for _, p in sorted(found.items())])
        for (name, _), matrix, found in zip(self.val, matrices, predictions):
            own = self._score(matrix, [p for _, p in sorted(found.items())])
            out |= {f"dataset/{name}/{k}": v for k, v in own.items()}
        return out

    def _matrix(self, found: Mapping[int, Prediction]) -> np.ndarray:
        return miou.confusion(((p["cells"], p["pixels"]) for p in found.values()), len(self.classes))

    def _score(self, matrix: np.ndarray, found: Sequence[Prediction]) -> dict[str, float]:
        total = int(matrix.sum())
        loss = float(np.concatenate([p["loss"] for p in found]).sum()) / total if total else float("nan")
        return miou.score(matrix, self.classes) | {"loss": loss}

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """The image under its classes, void hatched; with a prediction, that beside it."""
        samples = self.train if prediction is None else self.val_samples
        height, width = sample.image.shape[:2]
        to_input = np.linalg.inv(np.vstack([sample.to_native, [0, 0, 1]]))
        mask = sample.targets.get("mask")
        if mask is None:
            mask = warp_nearest(sample.targets["native_mask"], to_input, (width, height), VOID)
        truth = drawn.overlay(sample.image, mask, self.classes, title=file_name(samples, sample))
        if prediction is None:
            return truth
        small = drawn.decode_labels(prediction["preview"].tobytes())
        scale = np.diag([sample.native_size[0] / small.shape[1], sample.native_size[1] / small.shape[0], 1])
        found = warp_nearest(small, to_input @ scale, (width, height), VOID)
        return pictures.beside(truth, drawn.overlay(sample.image, found, self.classes, title="prediction"))

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """The main metrics of each dataset and of all together, then of each class, where they fit a table."""
        keys = list(self.monitors)
        rows: list[list[Any]] = [[name, n, *(metrics.get(f"dataset/{name}/{k}") for k in keys)] for name, n in self.val]
        rows.append(["all", sum(n for _, n in self.val), *(metrics.get(k) for k in keys)])
        for c in self.classes if len(self.classes) <= TABLED else ():
            rows.append([c, None, metrics.get(f"class/{c}/IoU"), None, metrics.get(f"class/{c}/accuracy"), None])
        return ["dataset, class", "images", *keys], rows

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        """A segmenter that answers the same everywhere is named."""
        answer = constant_answer(metrics, self.classes, "accuracy", "mean_accuracy", COLLAPSED)
        if answer is None:
            return []
        share = metrics["one_answer"]
        return [
            f"the segmenter has collapsed: it answers {answer} for {share:.0%} of the pixels; its pixel accuracy of "
            f"{metrics['pixel_accuracy']:.1%} is that class's share, its mIoU is {metrics['mIoU']:.1%}"
        ]

    def report(
        self, folder: Path, predictions: Sequence[Mapping[int, Prediction]], history: Mapping[str, Sequence[float]]
    ) -> None:
        """Curves, confusion matrix, IoU by class, the worst and the best images, and all numbers as text."""
        matrix = np.sum([self._matrix(found) for found in predictions], 0)
        iou = miou.intersection_over_union(matrix)
        report.segmentation(folder, matrix, iou, self.classes, history, self.monitors)
        of_image = {
            SampleKey(0, number, index): miou.score(self._matrix({index: p}), self.classes)["mIoU"]
            for number, found in enumerate(predictions)
            for index, p in found.items()
        }
        order = sorted((k for k, v in of_image.items() if not np.isnan(v)), key=lambda k: (of_image[k], k))
        for name, keys in (("worst", order[:WORST]), ("best", order[::-1][:WORST])):
            shown = [self.picture(self.val_samples[k], predictions[k.dataset][k.index]) for k in keys]
            pictures.save(folder / f"{name}_images.jpg", pictures.grid(shown, columns=2))
        metrics = self.metrics(predictions)
        report.text(folder / "evaluation_report.txt", *self.summary(metrics), metrics, self.remarks(metrics))


def _sums(parts: Mapping[str, Tensor], counts: Tensor) -> LossSum:
    """The loss of summed terms `[B]` by name, and what each image counts, `[B]`."""
    each = sum(parts.values(), start=counts * 0)
    return LossSum(each.sum(), counts.sum(), {k: v.sum().detach() for k, v in parts.items()}, each.detach())

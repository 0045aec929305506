"""Detection: boxes with classes, from several datasets that label different things."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.config import RunConfig, TorchvisionConfig
from ddptrain.data.augment.pipeline import fit_detection
from ddptrain.data.cache import read_cached
from ddptrain.data.detection import DetectionSamples
from ddptrain.data.images import BadImage, read_image
from ddptrain.data.labels import LabelSpace
from ddptrain.data.table import AnnotationTable
from ddptrain.errors import UserError
from ddptrain.losses.detection import detection_loss
from ddptrain.metrics import coco
from ddptrain.metrics.arrays import DetectionArrays, GroundTruth
from ddptrain.models.build import build_model
from ddptrain.models.postprocess import detections
from ddptrain.models.torchvision import TorchvisionDetector
from ddptrain.monitor import pictures
from ddptrain.structures import Batch, Detections, LossSum, Sample, SampleKey
from ddptrain.tasks.base import Prediction
from ddptrain.tasks.stream import build_sampler

DRAWN_SCORE = 0.25
"""Detections from this score on are drawn."""
DRAWN_SIDE = 320
"""Pictures of a smaller input are enlarged to at least this many pixels."""

Head = tuple[Callable[[RunConfig, nn.Module, Batch], LossSum], Callable[[RunConfig, nn.Module, Batch], list[Detections]]]


class DetectionModel:
    """The half of the task that needs no datasets."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.classes = config.classes
        self._loss, self._detect = HEADS["torchvision" if isinstance(config.model, TorchvisionConfig) else "yolo"]

    def build_model(self) -> nn.Module:
        """The network of `config.model`."""
        return build_model(self.config.model, len(self.classes), self.config.data.image_size)

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Summed loss of a micro batch."""
        return self._loss(self.config, model, batch)

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """`boxes` float32 `[n, 4]` in pixels of the file, `scores` float32 `[n]`, `labels` int64 `[n]`, best first."""
        found = self._detect(self.config, model, batch)
        out: list[Prediction] = []
        for i, d in enumerate(found):
            boxes = to_native(d.boxes.float(), batch.to_native[i], batch.native_size[i])
            out.append({k: v.cpu().numpy() for k, v in (("boxes", boxes), ("scores", d.scores.float()), ("labels", d.labels))})
        return out

    def predict_file(
        self, model: nn.Module, path: Path, device: torch.device, score: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Boxes in pixels of the file (with EXIF orientation applied), best first, and the picture."""
        try:
            image = read_image(str(path))
        except BadImage as e:
            raise UserError(str(e)) from None
        none = np.zeros((0, 4), np.float32)
        seen = fit_detection(image, none, np.zeros(0, np.int64), none, self.config.data.image_size)
        sample = Sample(
            key=SampleKey(0, 0, 0),
            image=seen.image,
            targets={"boxes": seen.boxes, "labels": seen.labels, "ignore_boxes": seen.ignore_boxes},
            annotated=np.ones(len(self.classes), bool),
            to_native=np.linalg.inv(seen.matrix)[:2].astype(np.float32),
            native_size=(image.shape[1], image.shape[0]),
        )
        found = self.predict(model, DetectionSamples.collate([sample]).to(device))[0]
        shown = found["scores"] >= score
        picture = pictures.draw(
            image, found["boxes"][shown], found["labels"][shown], self.classes, scores=found["scores"][shown]
        )
        rows = [
            {"class": self.classes[label], "score": round(float(s), 5), "box": [round(float(v), 2) for v in box]}
            for box, s, label in zip(found["boxes"], found["scores"], found["labels"].tolist())
        ]
        return {"width": image.shape[1], "height": image.shape[0], "detections": rows}, picture


class DetectionTask(DetectionModel):
    """See `tasks.base.Task` for what each member means."""

    best_metric = "AP"

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.notes: list[str] = []
        train_tables, train_space = self._tables("train")
        self.val_tables, self.val_space = self._tables("val")
        unsure = not train_space.annotated.all() or any((t.ignore | t.crowd).any() for t in train_tables)
        if unsure and isinstance(config.model, TorchvisionConfig):
            self.notes.append(
                f"warning: {config.model.name}: torchvision's losses know neither classes that are not annotated nor ignore "
                f"regions, both are background to them in training; model.name=yolo leaves them out"
            )
        self.sampler = build_sampler(config, [len(t) for t in train_tables])
        size = config.data.image_size
        self.train = DetectionSamples(train_tables, train_space.annotated, size, config.data.augment, config.seed)
        self.val_samples = DetectionSamples(self.val_tables, self.val_space.annotated, size, None, config.seed)
        self.val = [(d.name, len(t)) for d, t in zip(config.data.val, self.val_tables)]

    def _tables(self, part: str) -> tuple[list[AnnotationTable], LabelSpace]:
        datasets = getattr(self.config.data, part)
        found = [read_cached(d, self.config.data.on_fault) for d in datasets]
        space = LabelSpace.build(self.config.classes, datasets, [table for table, _ in found])
        applied = [space.apply(table) for table, _ in found]
        for d, (table, faults), kept, annotated in zip(datasets, found, applied, space.annotated):
            ignored = int(kept.ignore.sum())
            dropped = len(table.boxes) - len(kept.boxes)
            self.notes.append(
                f"{part} {d.name}: {len(kept)} images, {len(kept.boxes) - ignored} boxes"
                + (f", {ignored} ignore regions" if ignored else "")
                + (f", {dropped} boxes of dropped classes left out" if dropped else "")
                + f"; {faults.text()}"
            )
            unknown = [c for c, known in zip(self.classes, annotated) if not known]
            if unknown:
                self.notes.append(f"{part} {d.name}: {', '.join(unknown)} not annotated: unknown there, not background")
        return applied, space

    def metrics(self, predictions: Sequence[Mapping[int, Prediction]]) -> dict[str, float]:
        """COCO AP in all, per dataset and per class."""
        truths = [
            GroundTruth(name, t.boxes, t.labels, t.ignore, t.crowd, t.area, t.offsets, annotated)
            for (name, _), t, annotated in zip(self.val, self.val_tables, self.val_space.annotated)
        ]
        return coco.evaluate(truths, [_flat(found) for found in predictions], self.classes)

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """Truth on the sample's image; with a prediction, that beside it (from score 0.25 on)."""
        t = sample.targets
        truth = pictures.draw(
            sample.image,
            t["boxes"],
            t["labels"],
            self.classes,
            ignore=t["ignore_boxes"],
            title=str(tuple(sample.key)),
            min_side=DRAWN_SIDE,
        )
        if prediction is None:
            return truth
        shown = prediction["scores"] >= DRAWN_SCORE
        to_input = np.linalg.inv(np.vstack([sample.to_native, [0, 0, 1]]))
        corners = prediction["boxes"][shown].reshape(-1, 2) @ to_input[:2, :2].T + to_input[:2, 2]
        return pictures.beside(
            truth,
            pictures.draw(
                sample.image,
                corners.reshape(-1, 4),
                prediction["labels"][shown],
                self.classes,
                scores=prediction["scores"][shown],
                title="prediction",
                min_side=DRAWN_SIDE,
            ),
        )

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """AP of each dataset and of all together."""
        keys = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
        rows: list[list[Any]] = [[name, n, *(metrics.get(f"dataset/{name}/{k}") for k in keys)] for name, n in self.val]
        rows.append(["all", sum(n for _, n in self.val), *(metrics.get(k) for k in keys)])
        return ["dataset", "images", *keys], rows


def to_native(boxes: Tensor, matrix: Tensor, size: Tensor) -> Tensor:
    """Boxes `[n, 4]` of a letterboxed image in pixels of its file, clipped to it.

    Args:
        matrix: float `[2, 3]`: a scale and a shift, see `Batch.to_native`.
        size: width and height of the file.
    """
    scale = torch.stack([matrix[0, 0], matrix[1, 1]]).repeat(2)
    shift = matrix[:, 2].repeat(2)
    return (boxes * scale + shift).clamp(min=0).minimum(size.to(boxes.dtype).repeat(2))


def _normalise(batch: Batch) -> Tensor:
    return batch.images.float() / 255


def _flat(found: Mapping[int, Prediction]) -> DetectionArrays:
    return DetectionArrays.concatenate(
        [
            DetectionArrays(np.full(len(p["labels"]), index, np.int64), p["boxes"], p["scores"], p["labels"])
            for index, p in sorted(found.items())
        ]
    )


def _yolo_loss(config: RunConfig, model: nn.Module, batch: Batch) -> LossSum:
    loss = detection_loss(model(_normalise(batch)), **batch.targets, annotated=batch.annotated, config=config.loss)
    # YOLO's scale: the gradient of a step is that of global_batch times the mean loss, which lr and clip_norm are made for
    return loss.scaled(config.train.global_batch)


def _yolo_detect(config: RunConfig, model: nn.Module, batch: Batch) -> list[Detections]:
    e = config.eval
    return detections(
        model(_normalise(batch)), score_threshold=e.score_threshold, nms_iou=e.nms_iou, max_detections=e.max_detections
    )


def _torchvision_loss(config: RunConfig, model: nn.Module, batch: Batch) -> LossSum:
    t = batch.targets
    targets = [{"boxes": t["boxes"][t["image"] == i], "labels": t["labels"][t["image"] == i]} for i in range(len(batch))]
    means = model(_normalise(batch), targets)
    # these models average inside: the unit of their sums is the sample
    parts = {k: v * len(batch) for k, v in means.items()}
    normalizer = torch.tensor(float(len(batch)), device=batch.images.device)
    return LossSum(sum(parts.values(), start=normalizer * 0), normalizer, {k: v.detach() for k, v in parts.items()})


def _torchvision_detect(config: RunConfig, model: nn.Module, batch: Batch) -> list[Detections]:
    assert isinstance(model, TorchvisionDetector)
    model.limit(config.eval.score_threshold, config.eval.max_detections)
    return list(model(_normalise(batch)))


HEADS: dict[str, Head] = {"yolo": (_yolo_loss, _yolo_detect), "torchvision": (_torchvision_loss, _torchvision_detect)}

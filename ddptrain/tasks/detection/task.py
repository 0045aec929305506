"""Detection: boxes with classes, from several datasets that label different things."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.config import LossConfig, RunConfig
from ddptrain.data.augment.partners import Partners
from ddptrain.data.images.depth import DepthMaps, depth_of_file, find_depth
from ddptrain.data.images.read import BadImage, read_image
from ddptrain.data.samples.detection import DetectionSamples, Source, compose
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.cache import read_cached
from ddptrain.data.tables.contents import Contents
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.errors import UserError
from ddptrain.metrics import coco, visdrone, voc
from ddptrain.metrics.arrays import DetectionArrays, GroundTruth, Metrics
from ddptrain.models.build import DETECTORS
from ddptrain.models.detector import DetectorSettings
from ddptrain.reporting import pictures, report
from ddptrain.structures import Batch, Detections, LossSum, Sample, SampleKey
from ddptrain.tasks.base import Prediction, file_name
from ddptrain.tasks.inspection.base import data_sets
from ddptrain.tasks.inspection.classes import class_warnings, refuse_no_truth
from ddptrain.tasks.stream import build_partners, build_sampler, mixing_notes

DRAWN_SCORE = 0.25
"""Detections from this score on are drawn."""
DRAWN_SIDE = 320
"""Pictures of a smaller input are enlarged to at least this many pixels."""


class DetectionModel:
    """The half of the task that needs no datasets."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.classes = config.classes
        assert isinstance(config.loss, LossConfig)
        settings = DetectorSettings(
            len(config.classes), config.data.image_size, config.loss, config.eval, config.train.global_batch
        )
        self.detector = DETECTORS[config.model.name](config.model, settings)
        self.channels = self.detector.channels

    def build_model(self) -> nn.Module:
        """The network of `config.model`."""
        return self.detector.build()

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Summed loss of a micro batch."""
        return self.detector.loss(model, batch)

    def predict(self, model: nn.Module, batch: Batch) -> Sequence[Prediction]:
        """`boxes` float32 `[n, 4]` in pixels of the file, `scores` float32 `[n]`, `labels` int64 `[n]`, best first."""
        return self._in_files(self.detector.detect(model, batch), batch)

    def _in_files(self, found: Sequence[Detections], batch: Batch) -> list[dict[str, np.ndarray]]:
        out: list[dict[str, np.ndarray]] = []
        for i, d in enumerate(found):
            boxes = to_native(d.boxes.float(), batch.to_native[i], batch.native_size[i])
            out.append({k: v.cpu().numpy() for k, v in (("boxes", boxes), ("scores", d.scores.float()), ("labels", d.labels))})
        return out

    def predict_file(
        self, model: nn.Module, path: Path, device: torch.device, score: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Boxes in pixels of the image as it is read (`DataConfig.exif`), best first, and the picture; of a model that takes
        depth also whether anything is known of it."""
        try:
            image = read_image(str(path), self.config.data.exif)
            depth = None
            if self.channels > 3:
                data = self.config.data
                depth = depth_of_file(str(path), (image.shape[1], image.shape[0]), [*data.val, *data.train], self.channels)
        except BadImage as e:
            raise UserError(str(e)) from None
        none = np.zeros((0, 4), np.float32)
        source = Source(image, none, np.zeros(0, np.int64), none, np.ones(len(self.classes), bool), depth)
        sample = compose(SampleKey(0, 0, 0), [[source]], self.config.data.image_size, channels=self.channels)
        found = self.predict(model, DetectionSamples.collate([sample]).to(device))[0]
        shown = found["scores"] >= score
        picture = pictures.draw(
            image, found["boxes"][shown], found["labels"][shown], self.classes, scores=found["scores"][shown]
        )
        rows = [
            {"class": self.classes[label], "score": round(float(s), 5), "box": [round(float(v), 2) for v in box]}
            for box, s, label in zip(found["boxes"], found["scores"], found["labels"].tolist())
        ]
        known = {} if depth is None else {"depth": bool(depth.any())}
        return {"width": image.shape[1], "height": image.shape[0], **known, "detections": rows}, picture


class DetectionTask(DetectionModel):
    """See `tasks.base.Task` for what each member means."""

    monitors = ("AP", "AP50", "AP75", "loss")

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.notes: list[str] = []
        self.contents: list[Contents] = []
        train_tables, train_depth, train_space = self._tables("train")
        self.val_tables, val_depth, self.val_space = self._tables("val")
        self._refuse_missing(train_space)
        sets = data_sets(config, "train", train_tables, train_space.annotated)
        sets += data_sets(config, "val", self.val_tables, self.val_space.annotated)
        refuse_no_truth(config, sets, "box")
        self.notes += [f"warning: {line}" for line in class_warnings(config, sets, "box")]
        if not self.detector.partial_labels and any((t.ignore | t.crowd).any() for t in train_tables):
            self.notes.append(f"warning: {config.model.name} learns what is in ignore regions and crowds as background")
        self.sampler = build_sampler(config, [len(t) for t in train_tables])
        size = config.data.image_size
        self.train = DetectionSamples(
            train_tables,
            train_space.annotated,
            size,
            config.data.augment,
            config.seed,
            self._partners(),
            train_depth,
            self.channels,
        )
        self.val_samples = DetectionSamples(
            self.val_tables, self.val_space.annotated, size, None, config.seed, None, val_depth, self.channels
        )
        self.val = [(d.name, len(t)) for d, t in zip(config.data.val, self.val_tables)]

    def _refuse_missing(self, space: LabelSpace) -> None:
        """Some detectors cannot leave out what a dataset does not label."""
        data, name = self.config.data, self.config.model.name
        missing = [
            (d.name, self.classes[int(row.argmin())])
            for d, row in zip(data.train, space.annotated)
            if d.share != 0 and not row.all()
        ]
        if self.detector.partial_labels or not missing:
            return
        line = f"{name} learns what a dataset does not label as background, and {missing[0][0]} does not label {missing[0][1]}"
        if not data.allow_missing_annotations:
            raise UserError(f"model.name: {line}; use model.name=yolo, or accept it with data.allow_missing_annotations=true")
        self.notes.append(f"warning: {line}")

    def _partners(self) -> Partners | None:
        augment = self.config.data.augment
        partners = build_partners(self.config, self.sampler, augment.mosaic + augment.mixup)
        self.notes += mixing_notes(self.config, self.sampler.mixture.samples_per_epoch, partners, "mosaic", "mixup")
        return partners

    def _tables(self, part: str) -> tuple[list[AnnotationTable], list[DepthMaps | None], LabelSpace]:
        datasets = getattr(self.config.data, part)
        found = [read_cached(d, self.config.data.on_fault) for d in datasets]
        self.contents += [Contents(part, table) for table, _ in found]
        space = LabelSpace.build(self.config.classes, datasets, [table for table, _ in found])
        applied = [space.apply(table) for table, _ in found]
        for d, (table, faults), kept, annotated in zip(datasets, found, applied, space.annotated):
            ignored = int(kept.ignore.sum())
            dropped = len(table.boxes) - len(kept.boxes)
            empty = int((np.diff(kept.offsets) == 0).sum())
            self.notes.append(
                f"{part} {d.name}: {len(kept)} images, {len(kept.boxes) - ignored} boxes"
                + (f" ({empty} images without a box)" if empty else "")
                + (f", {ignored} ignore region{'s'[: ignored - 1]}" if ignored else "")
                + (f", {dropped} boxes of dropped classes left out" if dropped else "")
                + f"; {faults.text()}"
            )
            unknown = [c for c, known in zip(self.classes, annotated) if not known]
            if unknown:
                self.notes.append(f"{part} {d.name}: {', '.join(unknown)} not annotated: unknown there, not background")
        tables, depth, notes = find_depth(datasets, applied, self.channels, self.config.data.on_fault)
        self.contents += [Contents(part, maps.files(), "depth maps") for maps in depth if maps is not None]
        self.notes += notes
        return tables, depth, space

    def predict(self, model: nn.Module, batch: Batch) -> Sequence[Prediction]:
        """With the image's own `loss/<part>` and `normalizer`, float64, beside what is found in it."""
        found, losses, normalizers = self.detector.judge(model, batch)
        names = [*(f"loss/{name}" for name in losses), "normalizer"]
        rows = torch.stack([*losses.values(), normalizers], 1).detach().double().cpu().numpy()
        return [own | dict(zip(names, row)) for own, row in zip(self._in_files(found, batch), rows)]

    def metrics(self, predictions: Sequence[Mapping[int, Prediction]]) -> dict[str, float]:
        """COCO AP in all, per dataset and per class; further protocols per dataset, and their means; `loss`, as in training
        divided by what was to be found, and its parts."""
        truths = [
            GroundTruth(name, t.boxes, t.labels, t.ignore, t.crowd, t.area, t.offsets, annotated)
            for (name, _), t, annotated in zip(self.val, self.val_tables, self.val_space.annotated)
        ]
        found = [_flat(p) for p in predictions]
        metrics = coco.evaluate(truths, found, self.classes) | _losses([p for of in predictions for _, p in sorted(of.items())])
        for (name, _), of in zip(self.val, predictions):
            metrics[f"dataset/{name}/loss"] = _losses([p for _, p in sorted(of.items())])["loss"]
        for protocol, evaluate in PROTOCOLS.items():
            if protocol in self.config.eval.protocols:
                metrics |= _by_protocol(protocol, truths, [evaluate(t, f, self.classes) for t, f in zip(truths, found)])
        return metrics

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """Truth on the sample's image, and on its depth; or with a prediction, that beside it (from score 0.25 on)."""
        t = sample.targets

        def truth_on(image: np.ndarray, title: str) -> np.ndarray:
            return pictures.draw(
                image, t["boxes"], t["labels"], self.classes, ignore=t["ignore_boxes"], title=title, min_side=DRAWN_SIDE
            )

        truth = truth_on(sample.image, file_name(self.train if prediction is None else self.val_samples, sample))
        if prediction is None:
            return truth if self.channels == 3 else pictures.beside(truth, truth_on(sample.image[..., 3:4], "depth"))
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
        """AP and loss of each dataset, of all together, and the mean of the datasets'."""
        keys = ["AP", "AP50", "AP75", "APs", "APm", "APl", "loss"]
        rows: list[list[Any]] = [[name, n, *(metrics.get(f"dataset/{name}/{k}") for k in keys)] for name, n in self.val]
        rows.append(["all", sum(n for _, n in self.val), *(metrics.get(k) for k in keys)])
        if len(self.val) > 1:
            rows.append(["mean of datasets", None, metrics.get("AP_datasets"), *[None] * (len(keys) - 1)])
        return ["dataset", "images", *keys], rows

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        """None."""
        return []

    def report(
        self, folder: Path, predictions: Sequence[Mapping[int, Prediction]], history: Mapping[str, Sequence[float]]
    ) -> None:
        """The curves of training."""
        report.training_curves(folder / "training_curves.png", history, self.monitors)


def _losses(predictions: Sequence[Prediction]) -> dict[str, float]:
    """`loss` and its parts over some images, nan where there was nothing to find."""
    names = [n for p in predictions[:1] for n in p if n.startswith("loss/")]
    total = float(sum(p["normalizer"] for p in predictions)) if names else 0.0
    parts = {n: float(sum(p[n] for p in predictions)) / total if total else float("nan") for n in names}
    return {"loss": sum(parts.values()) if parts else float("nan"), **parts}


def _by_protocol(protocol: str, truths: Sequence[GroundTruth], values: Sequence[Metrics]) -> Metrics:
    """`dataset/<name>/<protocol>/<key>`, and `<protocol>/<key>`: the mean of the datasets that have truth."""
    own = {f"dataset/{t.name}/{protocol}/{k}": v for t, m in zip(truths, values) for k, v in m.items()}
    known = {k: [m[k] for m in values if not np.isnan(m[k])] for k in values[0]}
    return {f"{protocol}/{k}": float(np.mean(v)) if v else float("nan") for k, v in known.items()} | own


def to_native(boxes: Tensor, matrix: Tensor, size: Tensor) -> Tensor:
    """Boxes `[n, 4]` of a letterboxed image in pixels of its file, clipped to it.

    Args:
        matrix: float `[2, 3]`: a scale and a shift, see `Batch.to_native`.
        size: width and height of the file.
    """
    scale = torch.stack([matrix[0, 0], matrix[1, 1]]).repeat(2)
    shift = matrix[:, 2].repeat(2)
    return (boxes * scale + shift).clamp(min=0).minimum(size.to(boxes.dtype).repeat(2))


def _flat(found: Mapping[int, Prediction]) -> DetectionArrays:
    return DetectionArrays.concatenate(
        [
            DetectionArrays(np.full(len(p["labels"]), index, np.int64), p["boxes"], p["scores"], p["labels"])
            for index, p in sorted(found.items())
        ]
    )


PROTOCOLS: dict[str, Callable[[GroundTruth, DetectionArrays, Sequence[str]], Metrics]] = {
    "visdrone": lambda truth, found, classes: visdrone.evaluate(truth, found),
    "voc": voc.evaluate,
}
"""Metrics of one dataset that are offered beside COCO's."""

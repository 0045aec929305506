"""Detection: boxes with classes, from several datasets that label different things."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ddptrain.config import DetectionRun, YoloConfig
from ddptrain.config.batch import evaluated_at_once
from ddptrain.config.detection_augment import MIXING, DetectionAugment
from ddptrain.data.augment.partners import Partners, refuse_few
from ddptrain.data.formats.cache import read_cached
from ddptrain.data.formats.depth import DepthMaps, depth_of_file, find_depth
from ddptrain.data.images.pixels import Pixels
from ddptrain.data.images.read import BadImage
from ddptrain.data.inspect.statistics import class_counts, sides_in_network
from ddptrain.data.samples.compose import Source, compose
from ddptrain.data.samples.detection import DetectionSamples, window_batches
from ddptrain.data.stream.balance import Balance, Boxes
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.contents import Contents
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.data.tables.windows import Cutter, Tiles, cut_boxes, cut_images
from ddptrain.errors import UserError
from ddptrain.metrics.arrays import DetectionArrays
from ddptrain.metrics.matches import Matches
from ddptrain.metrics.outcome import BoxOutcome
from ddptrain.models import test_time
from ddptrain.reporting import pictures
from ddptrain.structures import Batch, LossSum, SampleKey
from ddptrain.system.printable import counted
from ddptrain.tasks.base import FileAnswer, Prediction, Predictions
from ddptrain.tasks.detection.advice import report_advice
from ddptrain.tasks.detection.build import build_detector, reads_boxes
from ddptrain.tasks.detection.found import Found, in_files, see_in_windows
from ddptrain.tasks.detection.inspect import few_updates, report_sizes, tiles_of, too_long
from ddptrain.tasks.detection.scale import resize, side_of_step
from ddptrain.tasks.detection.scores import detections_of, match_all, mean_losses, score, truth_of
from ddptrain.tasks.detection.view import DetectionView
from ddptrain.tasks.inspection.base import DataSet, Inspection, Part
from ddptrain.tasks.inspection.classes import report_classes
from ddptrain.tasks.stream import build_sampler, run_length, shares_of
from ddptrain.tasks.tables import TableTask, annotated, loss_weights


class DetectionTask(TableTask):
    """See `tasks.base.Task`.

    Attributes:
        val_sets: the validation datasets.
        sides: of the network's input in training, in pixels, one of which each step has.
        cutter: how images are cut to be predicted (`eval.tiles`), None for not.
    """

    config: DetectionRun
    unit = "box"
    read_table = staticmethod(read_cached)
    view_class = DetectionView
    monitors = ("AP", "AP50", "AP75", "loss")
    train: DetectionSamples
    val_samples: DetectionSamples
    val_sets: list[DataSet]

    def __init__(self, config: DetectionRun) -> None:
        super().__init__(config)
        self.sides = config.sides
        self.detector = build_detector(config, np.ones(len(config.classes), np.int64))
        self.channels = self.detector.channels
        tiles = config.eval.tiles
        self.cutter = None if tiles is None else Cutter.of(tiles, config.data.image_size)

    def read(self) -> None:
        config = self.config
        train, depth = self._with_depth("train")
        self.read_truth()
        self._refuse_missing(train)
        self.accept(train, self.val_sets)
        if not self.detector.partial_labels and any((s.table.ignore | s.table.crowd).any() for s in train):
            self.notes.append(f"warning: {config.model.name} learns objects in ignore regions and crowds as background")
        tiles = self.tiles(train, cut_boxes)
        used = [s for s in train if s.used]
        sides = [sides_in_network(s.table, config.data.image_size, cut) for s, cut in zip(train, tiles) if s.used]
        self.notes += [f"warning: {line}" for line in too_long(config, used, sides)]
        if reads_boxes(config):
            self.detector = build_detector(config, np.sum([class_counts(s.table) for s in used], 0), np.concatenate(sides))
            fitted = isinstance(config.model, YoloConfig) and config.model.anchors is None
            theirs = (
                "; those of the run of init_from, if it fitted some, take their place" if config.init_from and fitted else ""
            )
            self.notes += [f"{note}{theirs}" for note in self.detector.notes]
        self.sampler = self._sampler([s.table for s in train], tiles)
        self.notes += few_updates(config, run_length(config.train, self.sampler.mixture.samples_per_epoch))
        refuse_few(config.data.augment, sum(len(t or s.table) for t, s in zip(tiles, train) if s.used))
        partners = self.partners(config.data.augment, *MIXING)
        self.train = self._samples(train, depth, config.data.augment, partners, tiles)
        if len(self.sides) > 1:
            low, high = self.sides[0], self.sides[-1]
            self.notes.append(f"multi-scale: steps of {low} to {high} pixels; the largest take the most memory")

    def _sampler(self, tables: Sequence[AnnotationTable], tiles: Sequence[Tiles | None]) -> DistributedWeightedSampler:
        """The stream that `data.balance` asks for; also set `balance`."""
        data, sizes = self.config.data, [len(cut or t) for cut, t in zip(tiles, tables)]
        if data.balance == "none":
            return build_sampler(self.config, sizes)
        shares = shares_of(data.train) or [float(n) for n in sizes]
        boxes = []
        for table, cut, size in zip(tables, tiles, sizes):
            rows = np.flatnonzero(table.learned())
            owner = table.image_of_rows()[rows]
            if cut is not None:
                owner, rows = cut.learned(table)
            empty = 0 if cut is None else cut.empty
            boxes.append(Boxes(size, owner, table.labels[rows].astype(np.int64), len(self.classes), empty))
        together, by_ap = data.balance_over == "mixture", data.balance_by == "ap"
        self.balance = Balance(data.balance, data.balance_threshold, together, shares, boxes, by_ap)
        return build_sampler(self.config, sizes, self.balance.weights(), shares=shares)

    def read_truth(self) -> None:
        """Read the validation datasets alone, which is enough to score predictions that are there already."""
        self.val_sets, depth = self._with_depth("val")
        self.val = [(s.config.name, len(s.table)) for s in self.val_sets]
        self.val_samples = self._samples(self.val_sets, depth)
        if self.config.eval.rectangular:
            self.val_samples.rectangular, self.val_shapes = True, self.val_samples.shapes()
        tiles = self.config.eval.tiles
        if self.cutter is not None and tiles is not None:
            self.val_samples.cutter, self.val_samples.at_once, self.val_batch = self.cutter, self._at_once(), 1
            for s in self.val_sets:
                notes = cut_images(s.table, tiles, self.config.data.image_size).notes
                self.notes += [f"{s.title}: evaluated in windows: {line}" for line in notes]

    def _samples(
        self,
        sets: Sequence[DataSet],
        depth: Sequence[DepthMaps | None],
        augment: DetectionAugment | None = None,
        partners: Partners | None = None,
        tiles: Sequence[Tiles | None] = (),
    ) -> DetectionSamples:
        tables, size, seed = [s.table for s in sets], self.config.data.image_size, self.config.seed
        known, weights = annotated(sets), loss_weights(sets)
        return DetectionSamples(
            tables, known, size, augment, seed, partners, depth, self.channels, weights=weights, tiles=tiles
        )

    def _with_depth(self, part: Part) -> tuple[list[DataSet], list[DepthMaps | None]]:
        sets = self.datasets(part)
        configs, tables = [s.config for s in sets], [s.table for s in sets]
        tables, depth, notes = find_depth(configs, tables, self.channels, self.config.data.on_fault, part)
        self.contents = [*self.contents, *(Contents(part, m.files(), "depth maps") for m in depth if m is not None)]
        self.notes += notes
        return [s._replace(table=t) for s, t in zip(sets, tables)], depth

    def apply(self, space: LabelSpace, table: AnnotationTable, part: Part) -> tuple[AnnotationTable, str]:
        mapped = space.apply(table)
        dropped = len(table.boxes) - len(mapped.boxes)
        return mapped, f"{counted(dropped, 'box', 'boxes')} of dropped classes" if dropped else ""

    def notes_on(self, data: DataSet) -> list[str]:
        table: AnnotationTable = data.table
        ignored, empty = int(table.ignore.sum()), int((np.diff(table.offsets) == 0).sum())
        notes = [
            f"{data.title}: {counted(len(table), 'image')}, {counted(len(table.boxes) - ignored, 'box', 'boxes')}"
            + (f" ({counted(empty, 'image')} without a box)" if empty else "")
            + (f", {counted(ignored, 'ignore region')}" if ignored else "")
            + (f", {data.left_out} left out" if data.left_out else "")
            + f"; {data.faults.text()}"
        ]
        unknown = [c for c, known in zip(self.classes, data.annotated) if not known]
        if unknown:
            notes.append(f"{data.title}: {', '.join(unknown)} not annotated: unknown there, not background")
        return notes

    def facts(self, data: DataSet) -> dict[str, Any]:
        table: AnnotationTable = data.table
        ignored, crowds = int(table.ignore.sum()), int((table.crowd & ~table.ignore).sum())
        return {"boxes": len(table.boxes) - ignored - crowds, "ignore_regions": ignored, "crowds": crowds}

    def _refuse_missing(self, train: Sequence[DataSet]) -> None:
        """The models of torchvision cannot leave out what a dataset does not label."""
        name = self.config.model.name
        missing = [(s.config.name, self.classes[int(s.annotated.argmin())]) for s in train if s.used and not s.annotated.all()]
        if self.detector.partial_labels or not missing:
            return
        line = f"{name} learns what a dataset does not label as background, and {missing[0][0]} does not label {missing[0][1]}"
        if not self.config.data.allow_missing_annotations:
            raise UserError(f"model.name: {line}; use model.name=yolo, or accept it with data.allow_missing_annotations=true")
        self.notes.append(f"warning: {line}")

    def build_model(self) -> nn.Module:
        return self.detector.build()

    def at_step(self, batch: Batch, number: int) -> Batch:
        return resize(batch, side_of_step(self.sides, self.config.seed, number))

    def at_largest(self, batch: Batch) -> Batch:
        return resize(batch, self.sides[-1])

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        return self.detector.loss(model, batch)

    def predict(self, model: nn.Module, batch: Batch) -> Sequence[Prediction]:
        """`boxes` float32 `[n, 4]` in pixels of the file, `scores` float32 `[n]`, `labels` int64 `[n]`, best first; and the
        image's own `loss/<part>`, `normalizer` and number of objects `without_point`, float64; of an image in windows their
        sums."""
        return self._seen(batch, lambda part: self._judge(model, part))

    def _judge(self, model: nn.Module, batch: Batch) -> list[Found]:
        plain, losses, normalizers, without_point = self.detector.judge(model, batch)
        detections = test_time.detect(self.detector, model, batch, self.config.eval, plain)
        numbers = {**{f"loss/{name}": part for name, part in losses.items()}, "normalizer": normalizers}
        names = [*numbers, *(["without_point"] if without_point is not None else [])]
        columns = [*numbers.values(), *([without_point] if without_point is not None else [])]
        rows = torch.stack(columns, 1).detach().double().cpu().numpy()
        return [own | dict(zip(names, row)) for own, row in zip(in_files(detections, batch), rows)]

    def _seen(self, batch: Batch, see: Callable[[Batch], list[Found]]) -> list[Found]:
        """What `see` finds in a batch, or in the windows of its images."""
        return see(batch) if self.cutter is None else see_in_windows(batch, see, self.cutter, self.config.eval)

    def predict_image(self, model: nn.Module, image: np.ndarray, device: torch.device, path: Path | None = None) -> Prediction:
        """As in `predict`; the depth of an image without a path is unknown everywhere."""
        return self._detect(model, image, None if path is None else self._depth(path, image), device)

    def _depth(self, path: Path, image: np.ndarray) -> np.ndarray | None:
        """The depth map of an image file; None for a model that takes none."""
        if self.channels == 3:
            return None
        data = self.config.data
        try:
            return depth_of_file(str(path), (image.shape[1], image.shape[0]), [*data.val, *data.train], self.channels)
        except BadImage as e:
            raise UserError(str(e)) from None

    def _detect(
        self, model: nn.Module, image: np.ndarray, depth: np.ndarray | None, device: torch.device
    ) -> dict[str, np.ndarray]:
        none = np.zeros((0, 4), np.float32)
        source = Source(Pixels.of(image), none, np.zeros(0, np.int64), none, np.ones(len(self.classes), bool), depth)
        key, evaluation = SampleKey(0, 0, 0), self.config.eval
        sample = compose(key, [[source]], self.config.data.image_size, channels=self.channels)
        if self.cutter is not None:
            sample.windows = window_batches(key, source, self.cutter, self._at_once(), self.channels)
        batch = DetectionSamples.collate([sample]).to(device)
        see = lambda part: in_files(test_time.detect(self.detector, model, part, evaluation), part)  # noqa: E731
        (detected,) = self._seen(batch, see)
        return detected

    def _at_once(self) -> int:
        return evaluated_at_once(self.config.eval.batch, self.config.train.micro_batch)

    def predict_file(self, model: nn.Module, path: Path, device: torch.device, score: float) -> FileAnswer:
        """Boxes in pixels of the image as it is read (`DataConfig.exif`), best first, and the picture; of a model that takes
        depth also whether anything is known of it."""
        image = self.read_file(path)
        depth = self._depth(path, image)
        detected = self._detect(model, image, depth, device)
        shown = detected["scores"] >= score
        picture = pictures.draw(
            image, detected["boxes"][shown], detected["labels"][shown], self.classes, scores=detected["scores"][shown]
        )
        rows = [
            {"class": self.classes[label], "score": round(float(s), 5), "box": [round(float(v), 2) for v in box]}
            for box, s, label in zip(detected["boxes"], detected["scores"], detected["labels"].tolist())
        ]
        known = {} if depth is None else {"depth": bool(depth.any())}
        return {"width": image.shape[1], "height": image.shape[0], **known, "detections": rows}, picture

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """COCO AP in all, per dataset and per class; further protocols per dataset, and their means; `loss`, as in training
        divided by what was to be found, and its parts."""
        truths, detections = [truth_of(s) for s in self.val_sets], [detections_of(p) for p in predictions]
        metrics = score(truths, detections, self.classes, self.config.eval) | mean_losses(predictions)
        for (name, _), own in zip(self.val, predictions):
            metrics[f"dataset/{name}/loss"] = mean_losses([own])["loss"]
        # other pixels than in a square: whoever reads the numbers must see it
        metrics |= {} if self.cutter is None else {"tiles": float(self.cutter.size)}
        return metrics | ({"rectangular": 1.0} if self.config.eval.rectangular else {})

    def outcome(self, predictions: Predictions, metrics: Mapping[str, float], about: Mapping[str, Any]) -> BoxOutcome:
        return self.keep([detections_of(p) for p in predictions], metrics, about)

    def keep(self, detections: Sequence[DetectionArrays], metrics: Mapping[str, float], about: Mapping[str, Any]) -> BoxOutcome:
        """The outcome of these detections of each validation dataset, of whatever model."""
        matches = match_all([truth_of(s) for s in self.val_sets], detections, self.config.eval)
        return BoxOutcome(matches=Matches.concatenate(matches), **self.described(metrics, about))

    def inspect_labels(self, sets: Sequence[DataSet], out: Inspection) -> None:
        report_classes(sets, self.classes, np.array([class_counts(s.table) for s in sets]), self.unit, out)
        out.warnings += self.warnings(sets)
        tiles = tiles_of(sets, self.config.data.image_size)
        report_sizes(self.config, sets, tiles, out)
        report_advice(self.config, sets, tiles, out)

"""Pictures, tables and figures of detection."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.data.images.pixels import Pixels
from ddptrain.data.images.read import BadImage
from ddptrain.data.samples.compose import Source
from ddptrain.data.samples.plans import read_sized
from ddptrain.data.tables.windows import Cutter, Tiles
from ddptrain.metrics.outcome import BoxOutcome, Outcome
from ddptrain.reporting import pictures, report, tile_grid
from ddptrain.reporting.run_page.parts import Section
from ddptrain.reporting.table import Table
from ddptrain.reporting.trackers.base import Watched
from ddptrain.structures import Sample, SampleKey
from ddptrain.system.printable import counted
from ddptrain.tasks.base import Prediction, Predictions
from ddptrain.tasks.detection.report import DetectionReport
from ddptrain.tasks.detection.sections import detection_sections
from ddptrain.tasks.detection.watched import watched
from ddptrain.tasks.intervals import intervals_of
from ddptrain.tasks.view import TableView

DRAWN_SCORE = 0.25
"""Detections from this score on are drawn."""
DRAWN_SIDE = 320
"""Pictures of a smaller input are enlarged to at least this many pixels."""


class DetectionView(TableView):
    """See `tasks.base.View`."""

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """Truth on the sample's image, and on its depth; or with a prediction, that beside it (from score 0.25 on)."""
        truth = self._truth_on(sample.image, sample, self.file_name(sample, prediction))
        if prediction is None:
            depth = sample.image[..., 3:4]
            return pictures.beside(truth, self._truth_on(depth, sample, "depth")) if depth.size else truth
        shown = prediction["scores"] >= DRAWN_SCORE
        to_input = np.linalg.inv(np.vstack([sample.to_native, [0, 0, 1]]))
        corners = prediction["boxes"][shown].reshape(-1, 2) @ to_input[:2, :2].T + to_input[:2, 2]
        predicted = pictures.draw(
            sample.image,
            corners.reshape(-1, 4),
            prediction["labels"][shown],
            self.classes,
            scores=prediction["scores"][shown],
            title="prediction",
            min_side=DRAWN_SIDE,
        )
        return pictures.beside(truth, predicted)

    def figures(self) -> Sequence[tuple[np.ndarray, str]]:
        """Of each training dataset that is cut into tiles the image with the most objects: its tiles, and what they keep."""
        samples: Any = self.task.train
        return [figure for number, tiles in enumerate(samples.tiles) if tiles for figure in self._tile_figures(number, tiles)]

    def _tile_figures(self, dataset: int, tiles: Tiles) -> list[tuple[np.ndarray, str]]:
        samples: Any = self.task.train
        config: Any = self.task.config.data.train[dataset]
        table, cutter = samples.tables[dataset], tiles.cutter
        image = int(np.diff(table.offsets).argmax())
        try:
            source = samples.whole(dataset, image, Pixels.of(read_sized(table, image)))
        except BadImage:  # `check` counts those
            return []
        windows = cutter.windows(*source.size)
        name = f"{table.name}: {os.path.basename(table.path(image))}"
        out = [(tile_grid.overview(source.image.values, windows), f"{name} in {counted(len(windows), 'tile')}.")]
        for side, scale in zip(cutter.sides, config.tiles.scales):
            own = cutter._replace(sides=(side,)).windows(*source.size)
            shown = [self._shown_tile(source, window, cutter) for window in own]
            text = f"{name}, its tiles at scale {scale:g}: kept whole, cut and kept, and ignored (hatched)."
            out.append((tile_grid.sheet(shown, len(np.unique(own[:, 0]))), text))
        return out

    @staticmethod
    def _shown_tile(source: Source, window: np.ndarray, cutter: Cutter) -> tile_grid.ShownTile:
        x1, y1, x2, y2 = window.tolist()
        part = source.cut((x1, y1, x2, y2), cutter)
        seen = cutter.parts(source.boxes, window)
        whole = (seen.boxes == source.boxes).all(1)[seen.learned]
        return tile_grid.ShownTile(part.image.values, part.boxes[whole], part.boxes[~whole], part.ignore_boxes)

    def _truth_on(self, image: np.ndarray, sample: Sample, title: str) -> np.ndarray:
        t = sample.targets
        return pictures.draw(
            image, t["boxes"], t["labels"], self.classes, ignore=t["ignore_boxes"], title=title, min_side=DRAWN_SIDE
        )

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """AP and loss of each dataset, of all together, and the mean of the datasets'."""
        keys = ["AP", "AP50", "AP75", "APs", "APm", "APl", "loss"]
        rows = self.rows(metrics, keys)
        if len(self.task.val) > 1:
            rows.append(["mean of datasets", None, metrics.get("AP_datasets"), *[None] * (len(keys) - 1)])
        return ["dataset", "images", *keys], rows

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        """How many objects the assigner leaves without a point."""
        count = int(metrics.get("objects_without_point", 0))
        if not count:
            return []
        return [
            f"{counted(count, 'object')} would get no point from loss.assigner in training and be learned as background: too "
            "small for the head's grid, or crowded out by neighbours; set loss.every_object=true to give every object a point"
        ]

    def sections(self, predictions: Predictions, outcome: Outcome | None) -> Sequence[Section]:
        """All that `DetectionReport` says."""
        assert isinstance(outcome, BoxOutcome)
        return detection_sections(self._found(outcome))

    def _found(self, outcome: BoxOutcome) -> DetectionReport:
        return DetectionReport(outcome, self._reader(outcome))

    def watched(self, predictions: Predictions, metrics: Mapping[str, float]) -> Watched:
        outcome = self.task.outcome(predictions, metrics, {})
        assert isinstance(outcome, BoxOutcome)
        return watched(outcome, self._reader(outcome), metrics.get("confidence", math.nan))

    def _reader(self, outcome: Outcome) -> Callable[[int], np.ndarray]:
        """Gives the pixels of an image of an outcome by its number."""
        first = np.searchsorted(outcome.dataset, np.arange(len(outcome.datasets)))
        samples: Any = self.task.val_samples

        def read(image: int) -> np.ndarray:
            number = int(outcome.dataset[image])
            return np.asarray(samples.read(SampleKey(0, number, image - int(first[number]))))

        return read

    def report(self, folder: Path, predictions: Predictions, history: Mapping[str, Sequence[float]]) -> None:
        """The curves of training, and all that `DetectionReport` says."""
        outcome = self.task.outcome(predictions, self.task.metrics(predictions), {})
        assert outcome is not None
        self.report_outcome(folder, outcome, history)

    def report_outcome(self, folder: Path, outcome: Outcome, history: Mapping[str, Sequence[float]]) -> bool:
        """As `report`; False where the datasets hold other images or labels now than when they were evaluated."""
        now = self.task.outcome([{} for _ in self.task.val], {}, {})
        if now is None or (list(now.images), now.truth()) != (list(outcome.images), outcome.truth()):
            return False
        assert isinstance(outcome, BoxOutcome)
        self._found(outcome).write(folder)
        report.training_curves(folder / "training_curves.png", history, self.task.monitors)
        report.text(
            folder / "evaluation_report.txt",
            [Table(*self.summary(outcome.metrics)), intervals_of(outcome)],
            outcome.metrics,
            self.remarks(outcome.metrics),
        )
        return True

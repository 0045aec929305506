"""Pictures, tables and figures of segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.data.augment.warp import warp_nearest
from ddptrain.metrics import miou
from ddptrain.metrics.classification import constant_answer
from ddptrain.metrics.curves import calibration_of_bins, mean_curve
from ddptrain.metrics.outcome import Outcome
from ddptrain.metrics.pixel_confidence import Confidences, Steps, add_steps, counts_of_pixels, curve_of_pixels
from ddptrain.reporting import charts, masks, pictures, report
from ddptrain.reporting import curves as figures
from ddptrain.reporting.run_page.parts import Section
from ddptrain.reporting.table import Table
from ddptrain.reporting.trackers.base import MOST_CLASSES, Counts, Watched
from ddptrain.structures import VOID, Sample, SampleKey
from ddptrain.tasks.base import Prediction, Predictions
from ddptrain.tasks.intervals import intervals_of
from ddptrain.tasks.parts import save_confidence_curves
from ddptrain.tasks.segmentation.sections import segmentation_sections
from ddptrain.tasks.view import TableView

COLLAPSED = 0.9
"""Part of the pixels with the same answer from which on a segmenter counts as collapsed."""
TABLED = 30
"""Number of classes up to which each has a row in the table of an evaluation; history.csv and the report hold any number."""
WORST = 6
"""Number of images with the lowest IoU that the report shows, and of those with the highest."""


class SegmentationView(TableView):
    """See `tasks.base.View`."""

    def picture(self, sample: Sample, prediction: Prediction | None = None) -> np.ndarray:
        """The image under its classes, void hatched; with a prediction, that beside it."""
        height, width = sample.image.shape[:2]
        to_input = np.linalg.inv(np.vstack([sample.to_native, [0, 0, 1]]))
        mask = sample.targets.get("mask")
        if mask is None:
            mask = warp_nearest(sample.targets["native_mask"], to_input, (width, height), VOID)
        truth = masks.overlay(sample.image, mask, self.classes, title=self.file_name(sample, prediction))
        if prediction is None:
            return truth
        small = masks.decode_labels(prediction["preview"].tobytes())
        scale = np.diag([sample.native_size[0] / small.shape[1], sample.native_size[1] / small.shape[0], 1])
        predicted = warp_nearest(small, to_input @ scale, (width, height), VOID)
        return pictures.beside(truth, masks.overlay(sample.image, predicted, self.classes, title="prediction"))

    def summary(self, metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
        """The main metrics of each dataset and of all together, then of each class, where they fit a table."""
        keys = list(self.task.monitors)
        rows = self.rows(metrics, keys)
        for c in self.classes if len(self.classes) <= TABLED else ():
            rows.append([c, None, metrics.get(f"class/{c}/IoU"), None, metrics.get(f"class/{c}/accuracy"), None])
        return ["dataset, class", "images", *keys], rows

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        """A segmenter that gives nearly all pixels the same answer is named."""
        answer = constant_answer(metrics, self.classes, "accuracy", "mean_accuracy", COLLAPSED)
        if answer is None:
            return []
        share = metrics["one_answer"]
        return [
            f"the segmenter has collapsed: it answers {answer} for {share:.0%} of the pixels; its pixel accuracy of "
            f"{metrics['pixel_accuracy']:.1%} is that class's share, its mIoU is {metrics['mIoU']:.1%}"
        ]

    def sections(self, predictions: Predictions, outcome: Outcome | None) -> Sequence[Section]:
        """Curves, what is confused with what, and the worst images."""
        assert outcome is not None
        name = self.names(outcome)
        ranked = [(outcome.datasets[key.dataset], name(key), value) for key, value in self._ranked(predictions).items()]
        return segmentation_sections(self._matrix(predictions), self._confidences(predictions), ranked, self.classes)

    def watched(self, predictions: Predictions, metrics: Mapping[str, float]) -> Watched:
        found, matrix = self._confidences(predictions), self._matrix(predictions)
        of = calibration_of_bins(found.answers)
        counts = {c: Counts(*counts_of_pixels(own)) for c, own in zip(self.classes[:MOST_CLASSES], found.histogram)}
        drawn = {
            "confusion matrix": charts.matrix(matrix, self.classes, self.classes),
            "calibration": charts.reliability(of.precision, of.number, of.error),
        }
        return Watched({f"class/{name}": of_class for name, of_class in counts.items()}, drawn)

    def _confidences(self, predictions: Predictions) -> Confidences:
        images = [p for of_dataset in predictions for _, p in sorted(of_dataset.items())]
        return add_steps((Steps(*(p[f"step_{name}"] for name in Steps._fields)) for p in images), len(self.classes))

    def _matrix(self, predictions: Predictions) -> np.ndarray:
        return confusion([p for of_dataset in predictions for p in of_dataset.values()], len(self.classes))

    def _ranked(self, predictions: Predictions) -> dict[SampleKey, float]:
        """The mean IoU of each image that has one, the lowest first."""
        of_image = {
            SampleKey(0, number, index): miou.score(confusion([p], len(self.classes)), self.classes)["mIoU"]
            for number, of_dataset in enumerate(predictions)
            for index, p in of_dataset.items()
        }
        order = sorted((k for k, v in of_image.items() if not np.isnan(v)), key=lambda k: (of_image[k], k))
        return {key: of_image[key] for key in order}

    def report(self, folder: Path, predictions: Predictions, history: Mapping[str, Sequence[float]]) -> None:
        """Curves, confusion matrix, IoU by class, calibration, the worst and the best images, and all numbers as text."""
        order = list(self._ranked(predictions))
        for name, keys in (("worst", order[:WORST]), ("best", order[::-1][:WORST])):
            drawn = [self.picture(self.task.val_samples[k], predictions[k.dataset][k.index]) for k in keys]
            pictures.save(folder / f"{name}_images.jpg", pictures.grid(drawn, columns=2))
        matrix = self._matrix(predictions)
        report.training_curves(folder / "training_curves.png", history, self.task.monitors)
        report.confusion(folder / "confusion_matrix.png", matrix, self.classes, percent=True)
        report.class_iou(folder / "class_iou.png", miou.intersection_over_union(matrix), self.classes)
        found = self._confidences(predictions)
        curves = {c: curve_of_pixels(own) for c, own in zip(self.classes, found.histogram) if own[1].any()}
        if (mean := mean_curve(list(curves.values()))) is not None:
            save_confidence_curves(folder / "confidence_curves.png", curves, mean)
        figures.reliability(folder / "calibration.png", *calibration_of_bins(found.answers))
        metrics = self.task.metrics(predictions)
        outcome = self.task.outcome(predictions, metrics, {})
        tables = [Table(*self.summary(metrics)), *([] if outcome is None else [intervals_of(outcome)])]
        report.text(folder / "evaluation_report.txt", tables, metrics, self.remarks(metrics))


def confusion(predictions: Sequence[Prediction], classes: int) -> np.ndarray:
    """int64 `[C, C]`: pixels by true and predicted class, over all images."""
    return miou.confusion(((p["cells"], p["pixels"]) for p in predictions), classes)

"""The report on a detector's evaluation: curves, kinds of errors, the worst of them, labels that are probably wrong."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.data.images.read import BadImage
from ddptrain.metrics import curves, errors, suspects
from ddptrain.metrics.outcome import BoxOutcome
from ddptrain.metrics.resample import detection_metrics
from ddptrain.reporting import curves as figures
from ddptrain.reporting import gallery, report
from ddptrain.reporting.curves import Panel
from ddptrain.reporting.gallery import Tile
from ddptrain.structures import COCO_AREAS
from ddptrain.system.files import write_text
from ddptrain.system.printable import counted, guarded
from ddptrain.tasks.parts import save_confidence_curves

ReadImage = Callable[[int], np.ndarray]
SHOWN = 20
"""Objects that a gallery shows, at most `OF_IMAGE` of one image."""
OF_IMAGE = 3
SIZES = ("small", "medium", "large")
GROUPS = ((1, 1), (2, 5), (6, 10), (11, 20), (21, 50), (51, None))
"""Numbers of objects in an image, for AP by crowding."""


class DetectionReport:
    """Everything that can be said of one outcome.

    Args:
        read: gives the pixels of an image by its number; may raise `BadImage`.
    """

    def __init__(self, outcome: BoxOutcome, read: ReadImage) -> None:
        self.outcome, self.read, self.matches = outcome, read, outcome.matches
        self.curves = [curves.class_curve(self.matches, k) for k in range(len(outcome.classes))]
        self.mean = curves.mean_curve(self.curves)
        self.pairs = errors.find_overlaps(self.matches)
        self.errors = errors.find_errors(self.matches, self.pairs)
        self.suspects = suspects.find_suspects(self.matches, self.pairs)

    @property
    def threshold(self) -> float:
        """The confidence with the best mean F1."""
        return self.mean.threshold if self.mean else 0.5

    def write(self, folder: Path) -> None:
        """Write figures, galleries and the list of suspected labels. Raises `ImportError` without the package for figures."""
        folder.mkdir(parents=True, exist_ok=True)
        self.write_galleries(folder)
        write_text(folder / "suspected_labels.csv", self.suspects_csv())
        self.write_curves(folder)
        self.write_breakdown(folder)

    def write_curves(self, folder: Path) -> None:
        """Figures over the confidence, the confusion matrix, calibration and the costs of errors."""
        classes, m = self.outcome.classes, self.matches
        ap50 = [self.outcome.metrics.get(f"class/{c}/AP50", float("nan")) for c in classes]
        shown = [(c, curve, ap) for c, curve, ap in zip(classes, self.curves, ap50) if not np.isnan(ap)]
        report.pr_curve(folder / "pr_curve.png", {c: (curve.recall, curve.precision, ap) for c, curve, ap in shown})
        if self.mean is not None:
            save_confidence_curves(folder / "confidence_curves.png", {c: curve for c, curve, _ in shown}, self.mean)
        matrix = curves.confusion(m, self.threshold)
        title = f"boxes with confidence ≥ {self.threshold:.2f}, IoU 0.5"
        report.confusion(folder / "confusion_matrix.png", matrix, [*classes, "background"], title=title)
        judged = m.result[0, 0] >= 0
        figures.reliability(folder / "calibration.png", *curves.calibration(m.score[judged], m.result[0, 0, judged] == 1))
        figures.error_costs(folder / "errors.png", self.errors.count, self.errors.cost, self.outcome.metrics["AP50"])

    def write_breakdown(self, folder: Path) -> None:
        """Figure of precision and recall by size and by dataset, and of AP by the number of objects."""
        panels = [self._panel("by size of the object", self.by_size())]
        if len(self.outcome.datasets) > 1:
            panels.append(self._panel("by dataset", self.by_dataset()))
        figures.breakdown(folder / "breakdown.png", [*panels, self.by_objects()])

    def _panel(self, title: str, points: dict[str, curves.Point]) -> Panel:
        groups = [(name, counted(p.truths, "object")) for name, p in points.items()]
        series = {key: [getattr(p, key.lower()) for p in points.values()] for key in ("precision", "recall", "F1")}
        return Panel(f"{title}, confidence ≥ {self.threshold:.2f}", groups, series)

    def by_size(self) -> dict[str, curves.Point]:
        """At the best confidence: recall of the objects of each size, and precision of the detections of that size."""
        m = self.matches
        areas = (m.box[:, 2:].astype(np.float64) - m.box[:, :2]).prod(1)
        of_truth, of_found = (np.digitize(a, COCO_AREAS) for a in (m.truth_area, areas))
        return {name: curves.point(m, self.threshold, of_truth == k, of_found == k) for k, name in enumerate(SIZES)}

    def by_dataset(self) -> dict[str, curves.Point]:
        """The same of each dataset."""
        m, of = self.matches, self.outcome.dataset
        return {
            name: curves.point(m, self.threshold, of[m.truth_image] == k, of[m.image] == k)
            for k, name in enumerate(self.outcome.datasets)
        }

    def by_objects(self) -> Panel:
        """AP and AP50 of the images with so many objects."""
        m = self.matches
        objects = np.bincount(m.truth_image[m.counts[0]], minlength=m.images)
        groups = [(a, b, (objects >= a) & (objects <= (b or objects.max(initial=0)))) for a, b in GROUPS]
        groups = [(a, b, chosen) for a, b, chosen in groups if chosen.any()]
        weights = np.array([chosen for _, _, chosen in groups], np.float32).reshape(len(groups), m.images).T.copy()
        values = detection_metrics(m, self.outcome.classes, weights, ["AP", "AP50"])
        names = [(f"{a}" if a == b else f"{a} to {b}" if b else f"over {a - 1}", f"{w.sum()} im.") for a, b, w in groups]
        return Panel("by number of objects in the image", names, {key: values[key].tolist() for key in ("AP", "AP50")})

    def write_galleries(self, folder: Path) -> None:
        """The most confident false alarms, the misses, and the most suspicious labels."""
        m, classes = self.matches, self.outcome.classes
        alarms = np.flatnonzero(self.errors.kind != errors.NONE)
        alarms = self._spread(alarms[np.argsort(-m.score[alarms], kind="stable")], m.image)
        kinds = [*errors.KINDS]
        tiles = [
            self._tile(int(m.image[d]), int(self.errors.aim[d]), int(d),
                       [f"{classes[m.label[d]]} {m.score[d]:.2f}: {WORDS[kinds[self.errors.kind[d]]]}"])
            for d in alarms
        ]  # fmt: skip
        self._gallery(folder / "worst_false_alarms.jpg", tiles, "most confident false alarms:")
        missed = self._worst_misses()
        tiles = [self._tile(int(m.truth_image[g]), int(g), -1, [f"{classes[m.truth_label[g]]}: not found"]) for g in missed]
        self._gallery(folder / "worst_misses.jpg", tiles, "largest of the objects not found:")
        self._gallery(folder / "suspected_labels.jpg", self._suspect_tiles(), "labels that are probably wrong:")

    def _worst_misses(self) -> np.ndarray:
        """The largest of the boxes that no detection from the best confidence on has found."""
        m = self.matches
        found = np.zeros(len(m.truth_area), bool)
        found[m.truth[0, (m.result[0, 0] == 1) & (m.score >= self.threshold)]] = True
        missed = np.flatnonzero(m.counts[0] & ~found)
        return self._spread(missed[np.argsort(-m.truth_area[missed], kind="stable")], m.truth_image)

    def _suspect_tiles(self) -> list[Tile]:
        s = self.suspects
        rows = self._spread(np.arange(len(s.kind)), s.image)
        return [
            self._tile(int(s.image[r]), int(s.box[r]), int(s.detection[r]), [f"{r + 1}. {self._sentence(int(r))}"])
            for r in rows
        ]

    def _spread(self, rows: np.ndarray, image: np.ndarray) -> np.ndarray:
        """The first of the rows, a few of each image."""
        taken: dict[int, int] = {}
        kept = []
        for row in rows.tolist():
            of = int(image[row])
            taken[of] = taken.get(of, 0) + 1
            if taken[of] <= OF_IMAGE:
                kept.append(row)
            if len(kept) == SHOWN:
                break
        return np.array(kept, np.int64)

    def _tile(self, image: int, label: int, detection: int, caption: Sequence[str]) -> Tile:
        m = self.matches
        others = np.flatnonzero((m.truth_image == image) & m.counts[0] & (np.arange(len(m.truth_area)) != label))
        return Tile(
            image,
            m.truth_box[label] if label >= 0 else None,
            m.box[detection] if detection >= 0 else None,
            m.truth_box[others],
            [*caption, self.outcome.images[image]],
        )

    def _gallery(self, path: Path, tiles: Sequence[Tile], title: str) -> None:
        """Nothing is written where there is nothing to show; an old picture goes."""
        drawn = []
        for tile in tiles:
            try:
                drawn.append(gallery.draw(self.read(tile.image), tile))
            except BadImage:
                continue
        if drawn:
            gallery.write(path, drawn, title)
        else:
            path.unlink(missing_ok=True)

    def _sentence(self, row: int) -> str:
        """What contradicts a label, in a few words."""
        m, s, classes = self.matches, self.suspects, self.outcome.classes
        label = classes[m.truth_label[s.box[row]]] if s.box[row] >= 0 else ""
        found = f"{classes[m.label[s.detection[row]]]} {m.score[s.detection[row]]:.2f}" if s.detection[row] >= 0 else ""
        return {
            suspects.CLASS: f"{label}, or {found}?",
            suspects.ADDED: f"no label: {found}?",
            suspects.PLACE: f"{label}: misplaced? {found}",
            suspects.NO_OBJECT: f"{label}: is there one?",
        }[int(s.kind[row])]

    def suspects_csv(self) -> str:
        """A row for each suspected label, the most suspicious first; boxes in pixels of the file."""
        m, s, classes = self.matches, self.suspects, self.outcome.classes
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(SUSPECT_COLUMNS)
        for r in range(len(s.kind)):
            g, d, image = int(s.box[r]), int(s.detection[r]), int(s.image[r])
            row: list[Any] = [r + 1, suspects.KINDS[s.kind[r]], self.outcome.datasets[self.outcome.dataset[image]]]
            row += [guarded(self.outcome.images[image])]
            row += _cells(classes, m.truth_label[g], m.truth_box[g]) if g >= 0 else [""] * 5
            row += _cells(classes, m.label[d], m.box[d]) if d >= 0 else [""] * 5
            row += [f"{m.score[d]:.4f}" if d >= 0 else "", f"{s.strength[r]:.4f}", f"{s.rarity[r]:.5f}"]
            writer.writerow(row)
        return out.getvalue()


def _cells(classes: Sequence[str], label: int, box: np.ndarray) -> list[str]:
    return [guarded(classes[label]), *(f"{v:.1f}" for v in box)]


_BOX = ("x1", "y1", "x2", "y2")
SUSPECT_COLUMNS = (
    *("rank", "kind", "dataset", "file"),
    *("label", *(f"label_{v}" for v in _BOX)),
    *("detected", *(f"detected_{v}" for v in _BOX), "confidence"),
    *("strength", "rarity"),
)
WORDS = {
    "class": "wrong class",
    "location": "badly placed",
    "both": "class and place wrong",
    "duplicate": "duplicate",
    "background": "background",
}

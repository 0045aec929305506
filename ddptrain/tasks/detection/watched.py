"""What is watched of a detector at every evaluation: precision over recall, confusion, calibration, the worst mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ddptrain.data.images.read import BadImage
from ddptrain.metrics import curves
from ddptrain.metrics.outcome import BoxOutcome
from ddptrain.reporting import charts, gallery
from ddptrain.reporting.gallery import Tile
from ddptrain.reporting.pictures import grid
from ddptrain.reporting.trackers.base import MOST_CLASSES, Counts, Watched

SHOWN = 10
"""False alarms, and misses, that are shown, each of another image."""
LEAST = 0.05
"""Confidence below which a detection is never looked at alone: an untrained detector has thousands there, which take time."""


def watched(outcome: BoxOutcome, read: Callable[[int], np.ndarray], confidence: float) -> Watched:
    """See `tasks.base.View.watched`.

    Args:
        read: gives the pixels of an image by its number; may raise `BadImage`.
        confidence: from which on detections count in the confusion matrix and among the misses, if it is not below 0.05; NaN
            for 0.5.
    """
    m, classes = outcome.matches, outcome.classes
    confidence = 0.5 if np.isnan(confidence) else max(confidence, LEAST)
    by_class = {name: Counts(*curves.counts(m, k)) for k, name in enumerate(classes)}
    whole = Counts(*(np.sum(columns, 0) for columns in zip(*by_class.values())))
    counted = m.result[0, 0] >= 0
    of = curves.calibration(m.score[counted], m.result[0, 0, counted] == 1)
    names = [*classes, "background"]
    pictures = {
        "confusion matrix": charts.matrix(curves.confusion(m, confidence), names, names),
        "calibration": charts.reliability(of.precision, of.number, of.error),
    }
    for name, tiles in (("worst false alarms", _alarms(outcome)), ("worst misses", _misses(outcome, confidence))):
        if drawn := _drawn(tiles, read):
            pictures[name] = grid(drawn, columns=5)
    shown = dict(list(by_class.items())[:MOST_CLASSES]) if len(classes) > 1 else {}
    return Watched({"all": whole, **{f"class/{name}": counts for name, counts in shown.items()}}, pictures)


def _alarms(outcome: BoxOutcome) -> list[Tile]:
    """The most confident false alarms."""
    m = outcome.matches
    rows = np.flatnonzero(m.result[0, 0] == 0)
    worst = _one_an_image(rows[np.argsort(-m.score[rows], kind="stable")], m.image)
    return [_tile(outcome, int(m.image[d]), None, m.box[d], f"{outcome.classes[m.label[d]]} {m.score[d]:.2f}") for d in worst]


def _misses(outcome: BoxOutcome, confidence: float) -> list[Tile]:
    """The largest of the boxes that are not found."""
    m = outcome.matches
    found = np.zeros(len(m.truth_area), bool)
    found[m.truth[0, (m.result[0, 0] == 1) & (m.score >= confidence)]] = True
    rows = np.flatnonzero(m.counts[0] & ~found)
    worst = _one_an_image(rows[np.argsort(-m.truth_area[rows], kind="stable")], m.truth_image)
    return [_tile(outcome, int(m.truth_image[g]), m.truth_box[g], None, outcome.classes[m.truth_label[g]]) for g in worst]


def _one_an_image(rows: np.ndarray, image: np.ndarray) -> list[int]:
    first = np.sort(np.unique(image[rows], return_index=True)[1])
    return [int(row) for row in rows[first[:SHOWN]]]


def _tile(outcome: BoxOutcome, image: int, label: np.ndarray | None, detection: np.ndarray | None, caption: str) -> Tile:
    m = outcome.matches
    others = m.truth_box[(m.truth_image == image) & m.counts[0]]
    return Tile(image, label, detection, others, [caption, outcome.images[image]])


def _drawn(tiles: Sequence[Tile], read: Callable[[int], np.ndarray]) -> list[np.ndarray]:
    drawn = []
    for tile in tiles:
        try:
            drawn.append(gallery.draw(read(tile.image), tile))
        except BadImage:
            continue
    return drawn

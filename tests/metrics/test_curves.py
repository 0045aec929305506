"""Curves, the best threshold and the confusion matrix, checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_worlds import found, perturbed, truth

from ddptrain.metrics.curves import confusion_matrix, curves

A, B, C = (10, 10, 30, 30), (50, 10, 70, 30), (90, 10, 110, 30)
AWAY = (200, 200, 220, 220)


def test_curve_by_hand() -> None:
    world = truth([(0, A, 0), (0, B, 0), (1, C, 0), (1, A, 1)], 2, 3)
    rows = [(0, A, 0, 0.875), (0, AWAY, 0, 0.75), (0, B, 0, 0.75), (1, AWAY, 0, 0.5), (1, A, 1, 0.25)]
    got = curves([world], [found(rows)], ["a", "b", "c"])
    a = got["a"]
    assert a.scores.tolist() == [0.875, 0.75, 0.5]  # the two at 0.75 stand or fall together
    assert a.precision.tolist() == pytest.approx([1, 2 / 3, 1 / 2])
    assert a.recall.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert a.best() == pytest.approx((0.75, 2 / 3))
    assert got["b"].best() == pytest.approx((0.25, 1.0))
    assert got["c"].truths == 0
    assert all(math.isnan(v) for v in got["c"].best())
    assert got[""].truths == 4
    assert got[""].best() == pytest.approx((0.25, 2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4)))


def test_curve_leaves_out_ignore_regions_and_foreign_classes() -> None:
    one = truth([(0, A, 0), (0, (100, 100, 300, 300), -1)], 1, 2, ignore=[1], annotated=[0])
    two = truth([(0, B, 1)], 1, 2)
    rows = [(0, AWAY, 0, 0.9), (0, A, 0, 0.5), (0, C, 1, 0.95)]
    got = curves([one, two], [found(rows), found([(0, B, 1, 0.5)])], ["a", "b"])
    assert math.isnan(got["a"].precision[0])
    assert got["a"].precision[1] == 1.0
    assert got["a"].best() == (0.5, 1.0)
    assert got["b"].best() == (0.5, 1.0)


def test_confusion_by_hand() -> None:
    rows = [(0, A, 0), (0, B, 1), (1, C, 0), (1, (100, 100, 300, 300), -1)]
    detections = found(
        [
            (0, A, 0, 0.9),  # right
            (0, (51, 10, 71, 30), 0, 0.9),  # b taken for a
            (0, (58, 10, 78, 30), 1, 0.99),  # overlaps b by less than 0.45
            (1, C, 1, 0.2),  # below the score: c is missed
            (1, AWAY, 1, 0.9),  # in the region
        ]
    )
    got = confusion_matrix(truth(rows, 2, 2, ignore=[3]), detections)
    assert got.tolist() == [[1, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_pairs_are_one_to_one_largest_overlap_first() -> None:
    world = truth([(0, A, 0)], 1, 2)
    near, same = (0, (12, 10, 32, 30), 0, 0.99), (0, A, 1, 0.3)
    assert confusion_matrix(world, found([near, same])).tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_every_box_and_detection_is_counted_once() -> None:
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 100, (40, 2))
    boxes = np.concatenate([corner, corner + rng.integers(5, 40, (40, 2))], 1)
    world = truth([(i // 8, boxes[i].tolist(), int(rng.integers(3))) for i in range(40)], 5, 3)
    detections = perturbed(world, 1)
    got = confusion_matrix(world, detections, score=0.5)
    assert got[:-1].sum(1).tolist() == np.bincount(world.labels, minlength=3).tolist()
    kept = detections.labels[detections.scores >= 0.5]
    assert got[:, :-1].sum(0).tolist() == np.bincount(kept, minlength=3).tolist()
    assert got[-1, -1] == 0

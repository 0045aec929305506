"""Curves over the confidence, confusion and calibration, on examples small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from metric_worlds import found, perturbed, truth

from ddptrain.metrics.curves import (
    GRID,
    calibration,
    class_curve,
    confusion,
    counts,
    counts_of_answers,
    mean_curve,
    of_images,
    point,
)
from ddptrain.metrics.matching import match

A, B, C = ((x, 0.0, x + 10.0, 10.0) for x in (0, 100, 200))
NOWHERE = (500.0, 0.0, 510.0, 10.0)


def test_a_curve_holds_what_each_threshold_keeps() -> None:
    world = truth([(0, A, 0), (0, B, 0)], 1, 2)
    matches = match(world, found([(0, A, 0, 0.9), (0, NOWHERE, 0, 0.5), (0, B, 0, 0.5), (0, C, 0, 0.1)]))
    curve = class_curve(matches, 0)
    assert curve.score == pytest.approx([0.9, 0.5, 0.1])
    assert curve.precision == pytest.approx([1, 2 / 3, 2 / 4])
    assert curve.recall == pytest.approx([0.5, 1, 1])
    assert curve.f1 == pytest.approx([2 / 3, 4 / 5, 2 / 3])
    at = curve.at(np.array([0.05, 0.3, 0.7, 0.95]))
    assert at.precision == pytest.approx([2 / 4, 2 / 3, 1, 1])
    assert at.recall == pytest.approx([1, 1, 0.5, 0])
    mean = mean_curve([curve, class_curve(matches, 1)])  # the other class has no truth
    assert mean is not None
    assert mean.threshold == pytest.approx(0.5)
    assert mean.f1.max() == pytest.approx(4 / 5)
    assert mean.f1[np.searchsorted(GRID, 0.95)] == 0
    assert mean_curve([class_curve(matches, 1)]) is None


def test_counts_from_each_hundredth_on() -> None:
    world = truth([(0, A, 0), (0, B, 0)], 1, 2)
    matches = match(world, found([(0, A, 0, 0.9), (0, NOWHERE, 0, 0.5), (0, B, 0, 0.5), (0, C, 0, 0.125)]))
    columns = counts(matches, 0)
    assert [[int(c[i]) for c in columns] for i in (0, 30, 70, 95)] == [[2, 2, 0, 0], [2, 1, 0, 0], [1, 0, 1, 0], [0, 0, 2, 0]]
    answers = counts_of_answers(np.array([0.2, 0.8, 0.6]), np.array([False, True, False]))
    assert [[int(c[i]) for c in answers] for i in (0, 50, 90)] == [[1, 2, 0, 0], [1, 1, 0, 1], [0, 0, 1, 2]]


def test_confusion_has_a_background() -> None:
    world = truth([(0, A, 0), (0, B, 1), (0, C, 1), (1, A, 1)], 2, 2)
    rows = [(0, A, 0, 0.9), (0, B, 0, 0.8), (0, B, 0, 0.7), (0, NOWHERE, 1, 0.6), (1, A, 1, 0.3)]
    assert confusion(match(world, found(rows)), 0.5).tolist() == [
        [1, 0, 0],
        [1, 0, 2],  # B as class 0; C and the A of the second image not at all
        [1, 1, 0],  # B a second time, and nowhere
    ]
    assert confusion(match(world, found(rows)), 0.2)[1].tolist() == [1, 1, 1]


def test_a_threshold_of_some_boxes_and_detections() -> None:
    world = truth([(0, A, 0), (0, B, 0), (1, A, 0)], 2, 1)
    matches = match(world, found([(0, A, 0, 0.9), (0, NOWHERE, 0, 0.8), (1, A, 0, 0.2)]))
    every, none = np.ones(3, bool), np.zeros(3, bool)
    assert point(matches, 0.5, every, every)[:4] == (3, 2, 0.5, pytest.approx(1 / 3))
    assert point(matches, 0.5, matches.truth_image == 0, matches.image == 0).recall == 0.5
    empty = point(matches, 0.5, none, none)
    assert empty[:2] == (0, 0)
    assert np.isnan(empty[2:]).all()
    one = of_images(matches, np.array([False, True]))
    assert (one.label.tolist(), one.truths().tolist()) == ([0], [1])


def test_a_probability_that_says_what_happens_is_calibrated() -> None:
    r = np.random.default_rng(0)
    score = r.random(20000)
    assert calibration(score, r.random(20000) < score).error < 0.02
    assert calibration(np.full(100, 0.9), np.arange(100) < 50).error == pytest.approx(0.4)
    assert np.isnan(calibration(np.zeros(0), np.zeros(0, bool)).error)
    assert calibration(np.ones(3), np.ones(3, bool)).number[-1] == 3


def test_the_diagonal_holds_what_is_right() -> None:
    rng = np.random.default_rng(0)
    rows = [(i, (x, y, x + 20, y + 20), int(rng.integers(3))) for i in range(20) for x, y in rng.uniform(0, 200, (4, 2))]
    matches = match(truth(rows, 20, 3), perturbed(truth(rows, 20, 3), 1))
    table = confusion(matches, 0.4)
    assert table[:-1].sum() == len(rows)
    kept = matches.score >= 0.4
    assert table[:, :-1].sum() == kept.sum()
    assert np.trace(table) == (matches.result[0, 0, kept] == 1).sum()

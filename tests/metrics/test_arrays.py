"""Overlap, cover and matching against hand-made and brute-force answers."""

from __future__ import annotations

import numpy as np
import pytest
from metric_worlds import found, truth

from ddptrain.metrics.arrays import overlaps, prepare
from ddptrain.metrics.regions import covered


def test_overlaps() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 5, 5, 9]])
    others = np.array([[5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 40, 40]])
    got = overlaps(boxes, others, np.array([False, False, True]))
    assert got[0] == pytest.approx([50 / 150, 0, 1.0])
    assert got[1].tolist() == [0, 0, 0]


def test_covered_is_the_union_counted_in_pixels() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 5):
        corner = rng.integers(0, 30, (count, 2))
        regions = np.concatenate([corner, corner + rng.integers(1, 20, (count, 2))], 1)
        mask = np.zeros((60, 60))
        for x1, y1, x2, y2 in regions:
            mask[y1:y2, x1:x2] = 1
        corner = rng.integers(0, 30, (50, 2))
        boxes = np.concatenate([corner, corner + rng.integers(1, 25, (50, 2))], 1)
        wanted = [mask[y1:y2, x1:x2].mean() for x1, y1, x2, y2 in boxes]
        assert covered(boxes, regions) == pytest.approx(wanted)
    assert covered(np.array([[3.0, 3.0, 3.0, 3.0]]), np.array([[0, 0, 9, 9]])).tolist() == [0.0]


def test_prepare_sorts_by_image_then_score_and_keeps_ties_in_order() -> None:
    world = truth([], 4, 2, annotated=[0])
    box = (0, 0, 1, 1)
    rows = [(2, box, 0, 0.5), (0, box, 0, 0.1), (2, box, 1, 0.9), (2, (1, 1, 2, 2), 0, 0.5), (2, box, 0, 0.6)]
    kept, ends = prepare(world, found(rows))
    assert kept.image.tolist() == [0, 2, 2, 2]
    assert kept.scores.tolist() == pytest.approx([0.1, 0.6, 0.5, 0.5])
    assert kept.boxes[:, 0].tolist() == [0, 0, 0, 1]
    assert ends.tolist() == [0, 1, 1, 4, 4]

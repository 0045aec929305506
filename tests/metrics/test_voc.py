"""VOC's average precision, checked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from metric_worlds import found, perturbed, read_coco, truth

from ddptrain.metrics import coco
from ddptrain.metrics.voc import average_precision, evaluate

A, B, C = (10, 10, 30, 30), (50, 10, 70, 30), (90, 10, 110, 30)
AWAY = (200, 200, 220, 220)


def test_average_precision_by_hand() -> None:
    # of 4 to find: precision 1 at recall 1/4, then 2/3 at 2/4, then 1/2 at 3/4
    hits = np.array([1, 0, 1, 0, 0, 1], bool)
    assert average_precision(hits, 4) == pytest.approx((1 + 2 / 3 + 1 / 2) / 4)
    # recalls 0, .1, .2 | .3, .4, .5 | .6, .7 | .8, .9, 1
    assert average_precision(hits, 4, "11") == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 1 / 2 + 0) / 11)


def test_eleven_points_count_a_recall_that_is_reached_exactly() -> None:
    hits = np.array([1, 1, 1], bool)
    assert average_precision(hits, 10, "11") == pytest.approx(4 / 11)
    assert average_precision(hits, 10) == pytest.approx(0.3)


def test_edges() -> None:
    nothing = np.zeros(0, bool)
    assert math.isnan(average_precision(nothing, 0))
    for points in ("11", "all"):
        assert average_precision(nothing, 3, points) == 0.0
        assert average_precision(np.ones(3, bool), 3, points) == 1.0


def test_second_claim_is_a_false_alarm_and_difficult_is_neither() -> None:
    world = truth([(0, A, 0), (0, B, 0), (1, C, 0)], 2, 2, crowd=[1])
    detections = found(
        [
            (0, B, 0, 0.95),  # difficult
            (0, A, 0, 0.9),  # right
            (0, A, 0, 0.8),  # again
            (1, C, 0, 0.7),  # right
            (1, AWAY, 0, 0.6),  # wrong
            (0, A, 1, 0.9),  # of a class without truth
        ]
    )
    got = evaluate(world, detections, ["a", "b"])
    assert got["class/a/AP"] == got["AP"] == pytest.approx((1 + 2 / 3) / 2)
    assert math.isnan(got["class/b/AP"])


def test_iou_counts() -> None:
    world = truth([(0, A, 0)], 1, 1)
    shifted = found([(0, (15, 10, 35, 30), 0, 0.9)])  # IoU 15 / 25
    assert evaluate(world, shifted, ["a"], iou=0.6)["AP"] == 1.0
    assert evaluate(world, shifted, ["a"], iou=0.61)["AP"] == 0.0


def test_a_class_that_is_not_annotated_is_not_scored() -> None:
    world = truth([(0, A, 0)], 1, 2, annotated=[0])
    got = evaluate(world, found([(0, A, 0, 0.5), (0, B, 1, 0.9)]), ["a", "b"])
    assert got["AP"] == 1.0
    assert math.isnan(got["class/b/AP"])


def test_close_to_coco_on_real_truth(data_root: Path) -> None:
    """Same matches but for the claims, same curve but for its 101 points: AP50 of the two differs by little."""
    world, names, _ = read_coco(data_root / "tiny_coco38/annotations/instances_train2017.json")
    detections = perturbed(world, 0)
    ours = evaluate(world, detections, names)["AP"]
    assert ours == pytest.approx(coco.evaluate([world], [detections], names)["AP50"], abs=0.03)

"""VOC's average precision, checked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from metric_worlds import found, perturbed, read_coco, truth

from ddptrain.metrics import coco, voc
from ddptrain.metrics.arrays import DetectionArrays, GroundTruth
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


def devkit(world: GroundTruth, detections: DetectionArrays, label: int, iou: float, points: str) -> float:
    """The development kit's rules, one detection after the other, without its pixel added to each side."""
    image = world.image_of_boxes()
    mine = [d for d in range(len(detections.scores)) if detections.labels[d] == label]
    taken, hits, alarms = set(), 0, 0
    curve = []
    truths = int(((world.labels == label) & ~world.crowd).sum())
    for d in sorted(mine, key=lambda d: -detections.scores[d]):
        x1, y1, x2, y2 = detections.boxes[d].tolist()
        best, chosen = -1.0, -1
        for j in np.flatnonzero((image == detections.image[d]) & (world.labels == label)).tolist():
            a, b, c, e = world.boxes[j].tolist()
            common = max(min(x2, c) - max(x1, a), 0) * max(min(y2, e) - max(y1, b), 0)
            overlap = common / ((x2 - x1) * (y2 - y1) + (c - a) * (e - b) - common)
            if overlap > best:
                best, chosen = overlap, j
        if best >= iou and world.crowd[chosen]:
            continue
        right = best >= iou and chosen not in taken
        taken.add(chosen if right else -1)
        hits, alarms = hits + right, alarms + (not right)
        curve.append((hits / truths, hits / (hits + alarms)))
    if points == "11":
        return sum(max((p for r, p in curve if r >= t / 10 - 1e-12), default=0.0) for t in range(11)) / 11
    area, last = 0.0, 0.0
    for n, (recall, _) in enumerate(curve):
        area += (recall - last) * max(p for _, p in curve[n:])
        last = recall
    return area


@pytest.mark.parametrize("points", ["11", "all"])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_the_development_kit(seed: int, points: voc.Points) -> None:
    rng = np.random.default_rng(seed)
    corner, sides = rng.integers(0, 200, (40, 2)), rng.integers(8, 60, (40, 2))
    rows = [(i // 10, (*c, *(c + s)), int(rng.integers(2))) for i, (c, s) in enumerate(zip(corner, sides))]
    world = truth(rows, 4, 2, crowd=rng.choice(40, 6, replace=False).tolist())
    given = perturbed(world, seed)
    given = given._replace(scores=(rng.permutation(len(given.scores)) / 1000).astype(np.float32))
    for iou in (0.5, 0.75):
        got = evaluate(world, given, ["a", "b"], iou, points)
        for k, name in enumerate("ab"):
            wanted = devkit(world, given, k, iou, points)
            assert 0 < wanted < 1
            assert got[f"class/{name}/AP"] == pytest.approx(wanted, abs=1e-12)


def test_close_to_coco_on_real_truth(data_root: Path) -> None:
    """Same matches but for the claims, same curve but for its 101 points: AP50 of the two differs by little."""
    world, names, _ = read_coco(data_root / "tiny_coco38/annotations/instances_train2017.json")
    detections = perturbed(world, 0)
    ours = evaluate(world, detections, names)["AP"]
    assert ours == pytest.approx(coco.evaluate([world], [detections], names)["AP50"], abs=0.03)

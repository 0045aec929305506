"""UAVDT's numbers by hand, and against VisDrone's rules at one overlap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_worlds import cocoeval, found, perturbed, truth

from ddptrain.metrics import uavdt, visdrone
from ddptrain.metrics.uavdt import evaluate

A, B = (10, 10, 30, 30), (50, 10, 70, 30)
REGION = (200, 0, 300, 100)


def moved(box: tuple[int, ...], by: int) -> tuple[int, ...]:
    return (box[0] + by, box[1], box[2] + by, box[3])


def test_by_hand() -> None:
    world = truth([(0, A, 0), (0, B, 1), (1, A, 0), (1, REGION, 0)], 2, 3, ignore=[3])
    got = evaluate(
        world,
        found(
            [
                (0, moved(A, 3), 0, 0.9),  # IoU 17/23 = 0.74
                (0, moved(B, 4), 1, 0.8),  # 16/24 = 0.67: not enough
                (1, (250, 50, 350, 90), 1, 0.7),  # half in the region: dropped
                (1, A, 1, 0.6),  # the wrong class, but a vehicle
            ]
        ),
        ["car", "truck", "bus"],
    )
    assert got["class/car/AP70"] == pytest.approx(1 / 2)
    assert got["class/truck/AP70"] == 0
    assert math.isnan(got["class/bus/AP70"])
    assert got["AP70"] == pytest.approx(1 / 4)
    # found, a false alarm, found: precision 1 at 1/3 and 2/3 at 2/3
    assert got["AP70_vehicle"] == pytest.approx((1 + 2 / 3) / 3)
    assert got["AP50"] == pytest.approx((51 / 101 + 1) / 2)
    assert got["AP"] < got["AP50"]


def test_a_class_that_is_not_annotated_is_no_vehicle() -> None:
    world = truth([(0, A, 0)], 1, 2, annotated=[0])
    got = evaluate(world, found([(0, A, 0, 0.5), (0, B, 1, 0.9)]), ["car", "truck"])
    assert got["AP70_vehicle"] == got["AP70"] == 1
    assert all(math.isnan(v) for v in evaluate(truth([], 1, 1), found([(0, A, 0, 0.9)]), ["car"]).values())


@pytest.mark.parametrize("seed", range(3))
def test_against_other_rules(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image has one class, so that VisDrone's cap and weights do nothing; and COCO's numbers are pycocotools'."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(9):
        for x, y, w, h in np.concatenate([rng.integers(0, 200, (12, 2)), rng.integers(8, 60, (12, 2))], 1).tolist():
            rows.append((i, (x, y, x + w, y + h), i % 3))
    world = truth(rows, 9, 3)
    given = perturbed(world, seed, copies=2)
    given = given._replace(scores=(rng.permutation(len(given.scores)) / 1000).astype(np.float32))
    got = uavdt.evaluate(world, given, ["a", "b", "c"])
    monkeypatch.setattr(visdrone, "CAPS", (1, 10, 100, 10**6))
    monkeypatch.setattr(visdrone.match, "__defaults__", (100, np.array([0.7] * 10), visdrone.SIZES))
    assert got["AP70"] == pytest.approx(visdrone.evaluate(world, given)["AP_classes"], abs=1e-12)
    monkeypatch.undo()
    precision = cocoeval(world, given, 100)["precision"][..., 0, 0]
    assert got["AP"] == pytest.approx(precision.mean(), abs=1e-12)
    assert got["AP75"] == pytest.approx(precision[5].mean(), abs=1e-12)

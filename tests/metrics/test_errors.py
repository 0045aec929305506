"""Errors have the kinds and the costs of the package tidecv, and those of an example by hand."""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from metric_worlds import found, perturbed, truth

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth
from ddptrain.metrics.errors import KINDS, NONE, find_errors, find_overlaps
from ddptrain.metrics.matching import match

SHORT = dict(zip(("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FalsePos", "FalseNeg"), (*KINDS, "false alarms", "misses")))


def scenes(seed: int, images: int = 100, classes: int = 3) -> tuple[GroundTruth, DetectionArrays]:
    """Crowded scenes, of which some objects are not detected at all, and detections without equal scores."""
    rng = np.random.default_rng(seed)
    rows = []
    for image in range(images):
        for _ in range(int(rng.integers(0, 9))):
            x, y, w, h = *rng.uniform(0, 150, 2), *rng.uniform(10, 60, 2)
            rows.append((image, (x, y, x + w, y + h), int(rng.integers(classes))))
    world = truth(rows, images, classes)
    detections = perturbed(world, seed, copies=2)
    kept = detections.select(detections.image % 5 > 0)
    scores = rng.permutation(len(kept.scores)) / len(kept.scores)
    return world, kept._replace(scores=scores.astype(np.float32))


def by_tidecv(
    patch: pytest.MonkeyPatch, world: GroundTruth, detections: DetectionArrays
) -> tuple[dict[str, int], dict[str, float]]:
    """Counts and costs of the package; costs in 0..1."""
    for name in ("pandas", "seaborn"):  # for its plots only, and they take seconds to import
        patch.setitem(sys.modules, name, MagicMock())
    tide = pytest.importorskip("tidecv", reason="the comparison with tidecv needs it: pip install tidecv")
    real, answers = tide.Data("real", 10**6), tide.Data("answers", 10**6)

    def xywh(box: Any) -> list[float]:
        x1, y1, x2, y2 = box.astype(np.float64).tolist()
        return [x1, y1, x2 - x1, y2 - y1]

    for image in range(world.images):
        real.add_image(image, str(image))
    for image, box, label in zip(world.image_of_boxes().tolist(), world.boxes, world.labels.tolist()):
        real.add_ground_truth(image, label, xywh(box))
    for image, box, label, score in zip(
        detections.image.tolist(), detections.boxes, detections.labels.tolist(), detections.scores.tolist()
    ):
        answers.add_detection(image, label, score, xywh(box))
    run = tide.TIDE().evaluate(real, answers, mode=tide.TIDE.BOX)
    costs = {**run.fix_main_errors(), **run.fix_special_errors()}
    counts = {SHORT[kind.short_name]: n for kind, n in run.count_errors().items()}
    return counts, {SHORT[kind.short_name]: value / 100 for kind, value in costs.items()}


@pytest.mark.usefixtures("figures")  # tidecv imports matplotlib
@pytest.mark.parametrize("seed", [0, 1])
def test_kinds_and_costs_are_those_of_tidecv(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world, detections = scenes(seed)
    matches = match(world, detections, max_detections=None)
    errors = find_errors(matches, find_overlaps(matches))
    counts, costs = by_tidecv(monkeypatch, world, detections)
    assert errors.count == counts
    # the recalls at which precision is read differ by a rounding, which moves single ones of 101
    assert errors.cost == pytest.approx(costs, abs=5e-4)
    assert min(errors.count.values()) > 1
    assert max(costs.values()) > 0.05


def test_an_example_by_hand() -> None:
    a, b, c, d, e = ((x, 0.0, x + 10.0, 10.0) for x in (0, 100, 200, 300, 400))
    world = truth([(0, a, 0), (0, b, 0), (0, c, 0), (0, d, 1), (0, e, 1)], 1, 2)
    detections = found(
        [
            (0, a, 0, 0.9),
            (0, a, 0, 0.8),  # a again
            (0, b, 1, 0.7),  # takes b for the other class
            (0, (206, 0, 216, 10), 0, 0.6),  # IoU 4 / 16 with c
            (0, (306, 0, 316, 10), 0, 0.5),  # so, and of the other class
            (0, (500, 0, 510, 10), 1, 0.4),
        ]
    )
    matches = match(world, detections)
    errors = find_errors(matches, find_overlaps(matches))
    named = {float(s): "right" if k == NONE else KINDS[k] for s, k in zip(matches.score.round(1).tolist(), errors.kind)}
    kinds = {0.9: "right", 0.8: "duplicate", 0.7: "class", 0.6: "location", 0.5: "both", 0.4: "background"}
    assert {round(score, 1): kind for score, kind in named.items()} == kinds
    assert errors.missed.tolist() == [False, False, False, True, True]
    # class 0 finds one of three, first of all: recalls 0 to 0.33, 34 of 101; class 1 finds nothing
    base = 34 / 101 / 2
    # b, corrected, is second of four of class 0, after the duplicate: recalls up to 0.66 at a precision of 2 / 3
    assert errors.cost["class"] == pytest.approx((34 + 33 * 2 / 3) / 101 / 2 - base, abs=1e-6)
    assert errors.cost["background"] == errors.cost["both"] == errors.cost["duplicate"] == 0
    assert errors.cost["missed"] == 0


def test_detections_on_ignored_boxes_are_no_errors() -> None:
    region = (0.0, 0.0, 50.0, 50.0)
    world = truth([(0, region, 0), (0, (100, 0, 110, 10), 0)], 1, 1, ignore=[0])
    matches = match(world, found([(0, (5, 5, 15, 15), 0, 0.9), (0, (100, 0, 110, 10), 0, 0.8)]))
    errors = find_errors(matches, find_overlaps(matches))
    assert sum(errors.count.values()) == 0
    assert set(errors.cost.values()) == {0.0}


def test_without_a_box_every_detection_is_background_and_nothing_can_be_gained() -> None:
    world = truth([], 2, 2)
    matches = match(world, found([(0, (5, 5, 15, 15), 0, 0.9), (1, (5, 5, 15, 15), 1, 0.8)]))
    errors = find_errors(matches, find_overlaps(matches))
    assert {name: n for name, n in errors.count.items() if n} == {"background": 2}
    assert not errors.missed.size
    assert not errors.fixes.any()

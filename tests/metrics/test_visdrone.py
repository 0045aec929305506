"""VisDrone's protocol, checked by hand and against a plain transcription of its rules."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from metric_worlds import found, perturbed, truth

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth
from ddptrain.metrics.matching import THRESHOLDS
from ddptrain.metrics.visdrone import CAPS, evaluate

A, B, C = (10, 10, 30, 30), (50, 10, 70, 30), (90, 10, 110, 30)
REGION = (200, 0, 300, 100)


def test_perfect_and_nothing() -> None:
    world = truth([(0, A, 0), (1, B, 1)], 2, 3)
    got = evaluate(world, found([(0, A, 0, 0.9), (1, B, 1, 0.8)]))
    assert set(got.values()) == {1.0}
    assert set(evaluate(world, found([])).values()) == {0.0}
    assert all(math.isnan(v) for v in evaluate(truth([], 2, 3), found([(0, A, 0, 0.9)])).values())


def test_half_in_the_union_of_regions_is_dropped() -> None:
    """Truth and detections alike; two regions that overlap count once."""
    rows = [(0, A, 0), (0, (190, 10, 210, 30), 0), (0, REGION, -1), (0, (205, 0, 300, 100), -1)]
    got = evaluate(truth(rows, 1, 1, ignore=[2, 3]), found([(0, A, 0, 0.5), (0, (240, 40, 260, 60), 0, 0.9)]))
    assert got["AP"] == got["AR500"] == 1.0
    # a little less than half inside: truth to be found, and a false alarm
    rows[1] = (0, (189, 10, 209, 30), 0)
    got = evaluate(truth(rows, 1, 1, ignore=[2, 3]), found([(0, A, 0, 0.5), (0, (150, 10, 240, 30), 0, 0.9)]))
    assert got["AP"] == pytest.approx(0.5 * 0.5)
    assert got["AR500"] == 0.5


def test_cap_is_per_image_over_all_classes() -> None:
    world = truth([(0, A, 0), (0, B, 1)], 1, 2)
    got = evaluate(world, found([(0, A, 0, 0.9), (0, B, 1, 0.8)]))
    assert got["AR1"] == 0.5
    assert got["AR10"] == 1.0
    flood = [(0, C, 0, 0.9)] * CAPS[-1]
    assert evaluate(world, found([*flood, (0, B, 1, 0.8)]))["AR500"] == 0.0


def test_score_zero_boxes_count_for_recall_and_not_for_precision() -> None:
    world = truth([(0, A, 0), (0, B, 0)], 1, 1, crowd=[1])
    got = evaluate(world, found([(0, A, 0, 0.5), (0, B, 0, 0.9)]))
    assert got["AR500"] == got["AP"] == 0.5  # one of two found, no false alarm


def test_classes_weigh_by_images() -> None:
    world = truth([(0, A, 0), (1, A, 0), (2, A, 0), (2, B, 1)], 3, 3)
    got = evaluate(world, found([(i, A, 0, 0.9) for i in range(3)]))
    assert got["AP"] == pytest.approx(3 / 4)
    assert got["AP_classes"] == pytest.approx(1 / 2)


def plain(world: GroundTruth, found_: DetectionArrays) -> float:
    """AP by the rules, one box at a time."""
    image = np.repeat(np.arange(world.images), np.diff(world.offsets))

    def inside(box: np.ndarray, i: int) -> bool:
        grid = np.zeros((400, 400))
        for x1, y1, x2, y2 in world.boxes[(image == i) & world.ignore].astype(int):
            grid[y1:y2, x1:x2] = 1
        x1, y1, x2, y2 = box.astype(int)
        return grid[y1:y2, x1:x2].mean() >= 0.5

    left = [j for j in range(len(image)) if not world.ignore[j] and not inside(world.boxes[j], image[j])]
    per_class, weights = [], []
    for k in range(len(world.annotated)):
        aps = []
        for threshold in THRESHOLDS:
            rows, count = [], 0
            for i in range(world.images):
                mine = [d for d in range(len(found_.image)) if found_.image[d] == i and not inside(found_.boxes[d], i)]
                mine = sorted(mine, key=lambda d: -found_.scores[d])[:500]
                boxes = {j: world.boxes[j].tolist() for j in left if image[j] == i and world.labels[j] == k}
                count += len(boxes)
                for d in (d for d in mine if found_.labels[d] == k):
                    x1, y1, x2, y2 = found_.boxes[d].tolist()
                    best, chosen = threshold, None
                    for j, (a, b, c, e) in boxes.items():
                        common = max(min(x2, c) - max(x1, a), 0) * max(min(y2, e) - max(y1, b), 0)
                        overlap = common / ((x2 - x1) * (y2 - y1) + (c - a) * (e - b) - common)
                        if overlap >= best:
                            best, chosen = overlap, j
                    boxes.pop(chosen, None)
                    rows.append((-found_.scores[d], chosen is not None))
            rows.sort(key=lambda r: r[0])
            right = [r[1] for r in rows]
            points = [(sum(right[: n + 1]) / max(count, 1), sum(right[: n + 1]) / (n + 1)) for n in range(len(right))]
            ap, last = 0.0, 0.0
            for n, (recall, _) in enumerate(points):
                ap += (recall - last) * max(p for _, p in points[n:])
                last = recall
            aps.append(ap)
        per_class.append(np.mean(aps))
        weights.append(len({image[j] for j in left if world.labels[j] == k}))
    return float(np.average(per_class, weights=weights))


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_the_rules_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, ignore = [], []
    for i in range(4):
        for _ in range(12):
            x, y = rng.integers(0, 200, 2).tolist()
            w, h = rng.integers(8, 60, 2).tolist()
            if rng.random() < 0.15:
                ignore.append(len(rows))
            rows.append((i, (x, y, x + w, y + h), int(rng.integers(3))))
    world = truth(rows, 4, 3, ignore=ignore)
    given = perturbed(world, seed, copies=3)
    given = DetectionArrays(given.image, given.boxes.round().clip(0, 399), given.scores, given.labels)
    given = given.select((given.boxes[:, 2:] > given.boxes[:, :2]).all(1))
    given = DetectionArrays(given.image, given.boxes, rng.permutation(len(given.image)) / 1000, given.labels)
    wanted = plain(world, given)
    assert 0.05 < wanted < 0.9
    assert evaluate(world, given)["AP"] == pytest.approx(wanted, abs=1e-12)


def test_real_truth_finds_itself(data_root: Path) -> None:
    """The truth of the real files, given as detections, scores 1: ignore regions drop the same on both sides."""
    boxes, labels, ignore, offsets = [], [], [], [0]
    for path in sorted((data_root / "visdrone_native/VisDrone2019-DET-train/annotations").glob("*.txt")):
        for line in path.read_text().splitlines():
            x, y, w, h, _, category = (int(v) for v in line.split(",")[:6])
            if category != 11 and w and h:
                boxes.append((x, y, x + w, y + h))
                labels.append(category - 1)
                ignore.append(category == 0)
        offsets.append(len(boxes))
    array = np.array(boxes, np.float32)
    world = GroundTruth(
        "visdrone",
        array,
        np.array(labels),
        np.array(ignore),
        np.zeros(len(boxes), bool),
        (array[:, 2:] - array[:, :2]).prod(1),
        np.array(offsets),
        np.ones(10, bool),
    )
    assert world.ignore.any()
    image = np.repeat(np.arange(world.images), np.diff(world.offsets))
    own = ~world.ignore
    given = DetectionArrays(image[own], array[own], np.linspace(1, 0.5, own.sum(), dtype=np.float32), world.labels[own])
    got = evaluate(world, given)
    assert got["AP"] == got["AR500"] == pytest.approx(1.0)
    assert got["AR1"] < 0.2

"""The metric is pycocotools' own, whatever the order of the shards, and says NaN where there is nothing to find."""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path

import numpy as np
import pytest
from metric_worlds import found, perturbed, read_coco, truth
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth
from ddptrain.metrics.coco import KEYS, evaluate


def plain(data: dict, detections: DetectionArrays, max_detections: int) -> COCOeval:
    """COCOeval as everybody runs it, over a COCO JSON."""
    images, categories = [i["id"] for i in data["images"]], [c["id"] for c in data["categories"]]
    rows = []
    for image, box, score, label in zip(
        detections.image.tolist(),
        detections.boxes.astype(np.float64).tolist(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        strict=True,
    ):
        x1, y1, x2, y2 = box
        rows.append(
            {
                "image_id": images[image],
                "category_id": categories[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
        )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = data
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(rows), "bbox")
        run.params.maxDets = [1, 10, max_detections]
        run.evaluate()
        run.accumulate()
        if max_detections == 100:
            run.summarize()
    return run


@pytest.fixture(scope="module")
def tiny(data_root: Path) -> tuple:
    return read_coco(data_root / "tiny_coco38/annotations/instances_train2017.json")


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_plain_cocoeval(tiny: tuple, seed: int) -> None:
    world, names, data = tiny
    detections = perturbed(world, seed)
    stats = plain(data, detections, 100).stats
    got = evaluate([world], [detections], names)
    wanted = dict(zip(KEYS, [*stats[:6], stats[8]], strict=True))
    for key, value in wanted.items():
        assert abs(got[key] - value) < 1e-12, key
        assert got[f"dataset/coco/{key}"] == got[key]
    assert 0.1 < got["AP"] < 0.95
    assert got["AP_datasets"] == got["AP"]


@pytest.mark.parametrize("seed", range(6))
def test_equal_on_crowds_areas_and_ties(seed: int) -> None:
    """Whole-number boxes in a crowded scene: many overlaps and scores are equal, and areas lie on the bounds."""
    rng = np.random.default_rng(seed)
    count, images = 120, 6
    corner = rng.integers(0, 120, (count, 2))
    sides = rng.choice([4, 16, 32, 40, 96, 128], (count, 2))
    world = GroundTruth(
        "d",
        np.concatenate([corner, corner + sides], 1).astype(np.float32),
        rng.integers(0, 3, count),
        np.zeros(count, bool),
        rng.random(count) < 0.15,
        sides.prod(1) * rng.choice([1.0, 0.5], count),
        np.linspace(0, count, images + 1).astype(int),
        np.ones(3, bool),
    )
    detections = perturbed(world, seed, copies=5)
    detections = DetectionArrays(detections.image, detections.boxes.round(), detections.scores.round(1), detections.labels)
    rows = [
        {
            "id": n + 1,
            "image_id": int(np.searchsorted(world.offsets, n, "right")) - 1,
            "category_id": int(world.labels[n]),
            "bbox": [*map(float, corner[n]), *map(float, sides[n])],
            "area": float(world.area[n]),
            "iscrowd": int(world.crowd[n]),
        }
        for n in range(count)
    ]
    data = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": k} for k in range(3)],
        "annotations": rows,
    }
    stats = plain(data, detections, 100).stats
    got = evaluate([world], [detections], ["a", "b", "c"])
    assert [got[key] for key in KEYS] == [*stats[:6], stats[8]]


@pytest.mark.parametrize("max_detections", [2, 15, 300])
def test_max_detections_count_for_every_value(tiny: tuple, max_detections: int) -> None:
    world, names, data = tiny
    detections = perturbed(world, 3, copies=40)
    run = plain(data, detections, max_detections)
    at = run.params.maxDets.index(max_detections)
    precision, recall = run.eval["precision"][..., at], run.eval["recall"][..., at]
    got = evaluate([world], [detections], names, max_detections)
    for key, part in {
        "AP": precision[..., 0],
        "AP50": precision[0, ..., 0],
        "AP75": precision[5, ..., 0],
        "APs": precision[..., 1],
        "APm": precision[..., 2],
        "APl": precision[..., 3],
        "AR": recall[..., 0],
    }.items():
        assert abs(got[key] - part[part > -1].mean()) < 1e-12, key


def test_classes_without_truth_are_nan_and_leave_the_mean_alone(tiny: tuple) -> None:
    world, names, _ = tiny
    got = evaluate([world], [perturbed(world, 0)], names)
    present = {names[k] for k in np.unique(world.labels[~world.crowd])}
    per_class = {n: got[f"class/{n}/AP"] for n in names}
    assert {n for n, v in per_class.items() if not math.isnan(v)} == present
    assert got["AP"] == pytest.approx(np.nanmean(list(per_class.values())), abs=1e-12)
    assert -1 not in got.values()


def test_shards_in_any_order(tiny: tuple) -> None:
    """What 3 ranks found, gathered in any order, scores exactly as what one rank found."""
    world, names, _ = tiny
    whole = perturbed(world, 5)
    one = evaluate([world], [whole], names)
    shards = [whole.select(whole.image % 3 == rank) for rank in (2, 0, 1)]
    assert repr(evaluate([world], [DetectionArrays.concatenate(shards)], names)) == repr(one)


def test_two_datasets_together_are_one_dataset_with_all_images(tiny: tuple) -> None:
    """The union's AP is that of one dataset made of both; each dataset's AP is that of the dataset alone."""
    world, names, _ = tiny
    detections = perturbed(world, 6)
    half = world.images // 2
    cut = world.offsets[half]
    arrays = ("boxes", "labels", "ignore", "crowd", "area")
    kind = type(world)
    halves = [
        kind(
            name=name,
            annotated=world.annotated,
            offsets=world.offsets[images] - world.offsets[images][0],
            **{a: getattr(world, a)[rows] for a in arrays},
        )
        for name, images, rows in (
            ("a", slice(None, half + 1), slice(None, cut)),
            ("b", slice(half, None), slice(cut, None)),
        )
    ]
    first = detections.image < half
    found_a, found_b = detections.select(first), detections.select(~first)
    found_b = DetectionArrays(found_b.image - half, found_b.boxes, found_b.scores, found_b.labels)
    both = evaluate(halves, [found_a, found_b], names)
    one = evaluate([world], [detections], names)
    alone = evaluate(halves[1:], [found_b], names)
    for key in (*KEYS, *(f"class/{n}/{k}" for n in names for k in KEYS)):
        assert repr(both[key]) == repr(one[key]), key
    for key in KEYS:
        assert both[f"dataset/b/{key}"] == alone[key]
    assert both["AP_datasets"] == pytest.approx((both["dataset/a/AP"] + both["dataset/b/AP"]) / 2)


BOX = (10, 10, 30, 30)


def test_a_class_is_scored_only_where_it_is_annotated() -> None:
    """A dataset that does not label cats cannot call a cat wrong."""
    with_cats = truth([(0, BOX, 0), (1, BOX, 1)], 2, 2, name="both")
    only_dogs = truth([(0, BOX, 0)], 1, 2, name="dogs", annotated=[0])
    right = found([(0, BOX, 0, 0.9), (1, BOX, 1, 0.8)])
    cats_everywhere = found([(0, BOX, 0, 0.9), (0, BOX, 1, 0.99), (0, (50, 50, 80, 80), 1, 0.98)])
    got = evaluate([with_cats, only_dogs], [right, cats_everywhere], ["dog", "cat"])
    assert [got["AP"], got["class/cat/AP"], got["dataset/dogs/AP"]] == pytest.approx([1.0] * 3)
    unmasked = truth([(0, BOX, 0)], 1, 2, name="dogs")
    assert evaluate([with_cats, unmasked], [right, cats_everywhere], ["dog", "cat"])["class/cat/AP"] < 0.6


def test_ignore_region_makes_nothing_right_or_wrong() -> None:
    rows = [(0, BOX, 0), (0, (100, 100, 200, 200), -1)]
    in_region = [(0, (110, 110, 130, 130), label, 0.99) for label in (0, 0, 1)]
    detections = found([(0, BOX, 0, 0.9), *in_region])
    got = evaluate([truth(rows, 1, 2, ignore=[1])], [detections], ["a", "b"])
    assert [got["class/a/AP"], got["AP"]] == pytest.approx([1.0] * 2)
    assert math.isnan(got["class/b/AP"])
    bare = evaluate([truth(rows[:1], 1, 2)], [detections], ["a", "b"])
    assert bare["class/a/AP"] == pytest.approx(1 / 3)


def test_crowd_takes_many_of_its_own_class_only() -> None:
    rows = [(0, BOX, 0), (0, (60, 60, 80, 80), 1), (0, (100, 100, 200, 200), 0)]
    inside = [(0, (110, 110, 130, 130), 0, 0.99), (0, (140, 140, 160, 160), 0, 0.98)]
    other = [(0, (140, 140, 160, 160), 1, 0.97)]
    detections = found([(0, BOX, 0, 0.9), (0, (60, 60, 80, 80), 1, 0.9), *inside, *other])
    got = evaluate([truth(rows, 1, 2, crowd=[2])], [detections], ["a", "b"])
    assert got["class/a/AP"] == pytest.approx(1.0)
    assert got["class/b/AP"] == pytest.approx(0.5)


def test_nothing_found_is_zero_and_nothing_to_find_is_nan() -> None:
    nothing = DetectionArrays.concatenate([])
    assert evaluate([truth([(0, BOX, 0)], 3, 1)], [nothing], ["a"])["AP"] == 0.0
    got = evaluate([truth([], 3, 1), truth([], 0, 1, name="e")], [nothing, nothing], ["a"])
    assert all(math.isnan(v) for v in got.values())


def test_faulty_detections_are_refused() -> None:
    world = truth([(0, BOX, 0)], 1, 1)
    for row, words in (
        ((1, BOX, 0, 0.5), "image 1; there are 1"),
        ((0, BOX, 3, 0.5), "class 3; there are 1"),
        ((0, BOX, 0, math.nan), "1 detection has"),
        ((0, (0, 0, math.inf, 3), 0, 0.5), "1 detection has"),
    ):
        with pytest.raises(ValueError, match=words):
            evaluate([world], [found([row])], ["a"])


def test_silent(tiny: tuple, capsys: pytest.CaptureFixture[str]) -> None:
    world, names, _ = tiny
    evaluate([world], [perturbed(world, 0)], names)
    assert capsys.readouterr().out == ""

"""Metrics of drawn images are those of an evaluation of just these images; what is drawn is a function of the seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from metric_worlds import perturbed, read_coco

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth
from ddptrain.metrics.coco import evaluate
from ddptrain.metrics.matching import match
from ddptrain.metrics.resample import AT_ONCE, detection_metrics, draw_weights, interval

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@pytest.fixture(scope="module")
def world(data_root: Path) -> tuple[GroundTruth, list[str], DetectionArrays]:
    """Truth with crowds and small objects, and detections without equal scores: of those the order of images would decide."""
    truth, names, _ = read_coco(data_root / "tiny_coco38/annotations/instances_train2017.json")
    found = perturbed(truth, 0)
    scores = np.random.default_rng(1).permutation(len(found.scores)) / len(found.scores)
    return truth, names, found._replace(scores=scores.astype(np.float32))


def drawn(truth: GroundTruth, found: DetectionArrays, counts: np.ndarray) -> tuple[GroundTruth, DetectionArrays]:
    """The images as often as they were drawn, each copy an image of its own."""
    images = np.repeat(np.arange(truth.images), counts)
    rows = np.concatenate([np.arange(*truth.offsets[i : i + 2]) for i in images])
    columns = (getattr(truth, name)[rows] for name in ("boxes", "labels", "ignore", "crowd", "area"))
    ends = np.append(0, np.diff(truth.offsets)[images].cumsum())
    parts = [found.select(found.image == i) for i in images]
    parts = [p._replace(image=np.full(len(p.image), n)) for n, p in enumerate(parts)]
    return GroundTruth("drawn", *columns, ends, truth.annotated), DetectionArrays.concatenate(parts)


def test_each_image_once_gives_the_metrics_themselves(world: tuple) -> None:
    truth, names, found = world
    once = detection_metrics(match(truth, found), names, np.ones((truth.images, 1), np.float32), KEYS)
    metrics = evaluate([truth], [found], names)
    assert {name: float(v[0]) for name, v in once.items()} == pytest.approx(
        {n: metrics[n] for n in once}, abs=1e-6, nan_ok=True
    )
    assert 0.3 < metrics["AP"] < 0.95


def test_a_draw_is_the_evaluation_of_the_images_drawn(world: tuple) -> None:
    truth, names, found = world
    weights = next(draw_weights(np.zeros(truth.images, int), 3, seed=5))
    values = detection_metrics(match(truth, found), names, weights, KEYS)
    for k, counts in enumerate(weights.T.astype(int)):
        assert counts.sum() == truth.images
        assert counts.max() > 1
        copied, copies = drawn(truth, found, counts)
        metrics = evaluate([copied], [copies], names)
        assert {n: float(v[k]) for n, v in values.items()} == pytest.approx(
            {n: metrics[n] for n in values}, abs=1e-6, nan_ok=True
        )


def test_weights_of_0_and_1_choose_images(world: tuple) -> None:
    truth, names, found = world
    chosen = np.arange(truth.images) % 2
    values = detection_metrics(match(truth, found), names, chosen[:, None].astype(np.float32), KEYS)
    metrics = evaluate(*([part] for part in drawn(truth, found, chosen)), names)
    assert {n: float(v[0]) for n, v in values.items()} == pytest.approx({n: metrics[n] for n in values}, abs=1e-6, nan_ok=True)


def test_draws_are_a_function_of_the_seed_and_keep_the_datasets_sizes() -> None:
    group = np.repeat([0, 1, 3], [5, 30, 2])
    draws = np.concatenate(list(draw_weights(group, AT_ONCE + 50, seed=7)), 1)
    assert draws.shape == (37, AT_ONCE + 50)
    for number, size in ((0, 5), (1, 30), (3, 2)):
        assert (draws[group == number].sum(0) == size).all()
    again = np.concatenate(list(draw_weights(group, AT_ONCE + 50, seed=7)), 1)
    assert (draws == again).all()
    assert (draws[:, :AT_ONCE] == next(draw_weights(group, AT_ONCE, seed=7))).all()
    assert (draws != np.concatenate(list(draw_weights(group, AT_ONCE + 50, seed=8)), 1)).any()
    # a mean over n images has the error of a mean
    right = np.arange(30) < 21
    shares = right @ np.concatenate(list(draw_weights(np.zeros(30, int), 1000)), 1) / 30
    assert shares.std() == pytest.approx(np.sqrt(0.7 * 0.3 / 30), rel=0.1)
    low, high = interval(shares)
    assert low < 0.7 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 30), rel=0.15)


def test_an_interval_leaves_out_draws_without_truth() -> None:
    assert interval(np.array([np.nan, 0.5, 0.5])) == (0.5, 0.5)
    assert np.isnan(interval(np.array([np.nan]))).all()

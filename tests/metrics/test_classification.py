"""Metrics of classification against plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddptrain.metrics.classification import auc, confusion_matrix, multi_label, precision_recall, roc, single_label

NAMES = [f"c{i}" for i in range(7)]


@pytest.fixture
def world() -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(3)
    truth = r.integers(0, 6, 200)  # class 6 never occurs
    logits = r.normal(size=(200, 7)).round(1)  # with ties
    logits[np.arange(200), truth] += 1
    return logits, truth


def test_plain_definitions(world: tuple[np.ndarray, np.ndarray]) -> None:
    logits, truth = world
    found = single_label(logits, truth, NAMES)
    order = np.argsort(-logits, axis=1, kind="stable")
    assert found["accuracy"] == pytest.approx((order[:, 0] == truth).mean())
    assert found["top5"] == pytest.approx((order[:, :5] == truth[:, None]).any(1).mean())
    recalls = [(order[truth == k, 0] == k).mean() for k in range(6)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    others = (order[truth != 2, 0] != 2).mean()
    assert found["class/c2/balanced_accuracy"] == pytest.approx((recalls[2] + others) / 2)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["loss"] == pytest.approx(-np.log(p[np.arange(200), truth]).mean())
    pairs = [
        (p[i, 0] > p[j, 0]) + 0.5 * (p[i, 0] == p[j, 0]) for i in np.flatnonzero(truth == 0) for j in np.flatnonzero(truth)
    ]
    assert found["class/c0/auc"] == pytest.approx(np.mean(pairs))
    assert math.isnan(found["class/c6/recall"])
    assert math.isnan(found["class/c6/AP"])
    matrix = confusion_matrix(truth, order[:, 0], 7)
    assert matrix.sum() == 200
    assert matrix[0, 1] == ((truth == 0) & (order[:, 0] == 1)).sum()
    assert 0 < found["one_answer"] < 0.5


def test_the_order_of_images_does_not_matter(world: tuple[np.ndarray, np.ndarray]) -> None:
    logits, truth = world
    shuffled = np.random.default_rng(0).permutation(200)
    a, b = single_label(logits, truth, NAMES), single_label(logits[shuffled], truth[shuffled], NAMES)
    assert a.keys() == b.keys()
    for key in a:
        assert a[key] == pytest.approx(b[key], nan_ok=True)


def test_perfect_and_useless_scores() -> None:
    truth = np.array([True, False, True, False])
    assert auc(np.array([3, 1, 4, 2]), truth) == 1
    assert auc(np.ones(4), truth) == 0.5
    assert precision_recall(np.array([3, 1, 4, 2]), truth)[2] == 1
    assert precision_recall(np.ones(4), truth)[2] == 0.5
    assert math.isnan(auc(np.ones(4), np.ones(4, bool)))
    x, y = roc(np.array([3, 1, 4, 2]), truth)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_average_precision_is_the_sum_over_positives() -> None:
    """Without ties: the mean, over the positives, of the precision at each of them."""
    r = np.random.default_rng(1)
    scores, truth = r.permutation(50).astype(float), r.random(50) < 0.3
    ranked = truth[np.argsort(-scores)]
    at = np.flatnonzero(ranked)
    assert precision_recall(scores, truth)[2] == pytest.approx(np.mean(ranked.cumsum()[at] / (at + 1)))


def test_several_classes_only_where_they_are_known() -> None:
    logits = np.array([[2.0, -1.0], [-1.0, 3.0], [1.0, 1.0]])
    truth = np.array([[True, False], [False, True], [False, False]])
    known = np.array([[True, True], [True, True], [True, False]])
    found = multi_label(logits, truth, known, ["a", "b"])
    assert found["class/a/precision"] == 0.5
    assert found["class/a/recall"] == 1
    assert found["class/b/f1"] == 1  # the false alarm on the third image is not known to be one
    assert found["accuracy"] == pytest.approx(4 / 5)
    assert found["f1_micro"] == pytest.approx(2 * 2 / (3 + 2))


def test_a_class_that_no_sample_knows_has_no_value_and_is_in_no_mean() -> None:
    logits = np.array([[2.0, -1.0], [-1.0, 3.0], [1.0, 1.0]])
    truth = np.array([[True, False], [False, False], [True, False]])
    known = np.array([[True, False], [True, False], [True, False]])
    found, alone = multi_label(logits, truth, known, ["a", "b"]), multi_label(logits[:, :1], truth[:, :1], known[:, :1], ["a"])
    assert {key for key in found if key.startswith("class/b/") and not math.isnan(found[key])} == set()
    assert {key: found[key] for key in alone if key != "loss"} == {key: alone[key] for key in alone if key != "loss"}
    assert found["auc"] == 1

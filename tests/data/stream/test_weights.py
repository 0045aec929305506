"""Weights from labels, against the formulas worked by hand, and systematic resampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddptrain.data.stream.weights import SampleWeights, class_balanced_weights, image_weights_from_class_ap

IMAGE = np.array([0, 0, 1, 2, 2, 2])
LABELS = np.array([0, 0, 0, 0, 1, 1])


def test_repeat_factors() -> None:
    # class 0 is on 3 of 4 images, class 1 on 1 of 4; the threshold lies between
    got = class_balanced_weights(4, IMAGE, LABELS, threshold=0.5)
    assert np.allclose(got, [1, 1, np.sqrt(0.5 / 0.25), 1])


def test_images_without_any_box_have_weight_one() -> None:
    none = np.zeros(0, np.int64)
    assert class_balanced_weights(3, none, none).tolist() == [1, 1, 1]


def test_yolo_image_weights() -> None:
    # 4 boxes of class 0 and 2 of class 1: 1/n is 1/4 and 1/2, normalised 1/3 and 2/3
    got = image_weights_from_class_ap(4, IMAGE, LABELS, [0.5, 0.0])
    w = [1 / 3 * 0.25, 2 / 3]
    assert np.allclose(got, [2 * w[0], w[0], w[0] + 2 * w[1], 0])


def test_a_class_without_truth_counts_as_ap_zero() -> None:
    a = image_weights_from_class_ap(4, IMAGE, LABELS, [0.5, -1.0])
    b = image_weights_from_class_ap(4, IMAGE, LABELS, [0.5, float("nan")])
    assert np.array_equal(a, b)
    assert np.array_equal(a, image_weights_from_class_ap(4, IMAGE, LABELS, [0.5, 0.0]))


def test_a_class_without_an_ap_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 values, and a box has class 1"):
        image_weights_from_class_ap(4, IMAGE, LABELS, [0.5])


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=60).filter(any),
    st.integers(1, 500),
    st.integers(0, 10**9),
    st.integers(0, 2**64 - 1),
)
def test_visits_are_floor_or_ceil_of_what_the_weights_ask(w: list[float], draws: int, epoch: int, key: int) -> None:
    weights = SampleWeights(["a"], [len(w)], w)
    visits = np.bincount(weights.pick(0, np.arange(draws), draws, epoch, key), minlength=len(w))
    expected = np.array(w) / np.sum(w) * draws
    assert visits.sum() == draws
    assert (np.abs(visits - expected) < 1 + 1e-6).all()
    assert not visits[np.array(w) == 0].any()


def test_visits_follow_the_weights_over_epochs_that_draw_few() -> None:
    w = np.random.default_rng(0).random(500)
    weights = SampleWeights(["a"], [500], w)
    visits = sum(np.bincount(weights.pick(0, np.arange(7), 7, e, 99), minlength=500) for e in range(5000))
    assert np.abs(visits - w / w.sum() * 35_000).max() < 5


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ([1.0] * 4, r"shape \(4,\) for 5 samples"),
        ([[1, 1, 1], [1]], r"small: sample_weights of shape \(1,\) for 2"),
        ([[1, 1, 1]], "1 arrays for 2 datasets"),
        ([1, 1, 1, -2, 1], "small: weight -2.0 of sample 0"),
        ([1, np.nan, 1, 1, 1], "big: weight nan of sample 1"),
        ([1, 1, np.inf, 1, 1], "big: weight inf of sample 2"),
    ],
)
def test_errors_name_the_dataset_and_the_value(given_: list, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SampleWeights(["big", "small"], [3, 2], given_)

"""Pixels counted in steps of their probability, against curves over all pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddptrain.metrics import curves
from ddptrain.metrics.pixel_confidence import THRESHOLDS, Steps, add_steps, count_steps, counts_of_pixels, curve_of_pixels
from ddptrain.structures import VOID


def image(seed: int, classes: int, size: tuple[int, int] = (9, 7), void: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `[C, H, W]`, some 0 and some 1, none where rounding would decide about its step, and the class of each
    pixel `[H, W]`."""
    r = np.random.default_rng(seed)
    steps = len(THRESHOLDS) - 1
    p = (r.integers(0, steps, (classes, *size)) * r.choice([0, 1]) + r.uniform(0.1, 0.9, (classes, *size))) / steps
    p = np.choose(r.choice(3, p.shape, p=[0.8, 0.1, 0.1]), [p, 0, 1])
    truth = np.where(r.random(size) < void, VOID, r.integers(0, classes, size)).astype(np.uint8)
    return p.astype(np.float32), truth


def counted(p: np.ndarray, truth: np.ndarray, annotated: list[bool] | None = None) -> Steps:
    known = torch.tensor(annotated or [True] * len(p))
    log_p = torch.from_numpy(p).masked_fill(~known[:, None, None], 0).log()
    return count_steps(log_p, torch.from_numpy(p.argmax(0)), torch.from_numpy(truth), known)


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_counts_are_those_of_the_probabilities_themselves(seed: int, classes: int) -> None:
    p, truth = image(seed, classes)
    found = add_steps([counted(p, truth)], classes)
    valid = truth != VOID
    for k, histogram in enumerate(found.histogram):
        real = truth[valid] == k
        for row, threshold in zip(zip(*counts_of_pixels(histogram)), THRESHOLDS):
            said = p[k][valid] >= threshold
            assert row == ((said & real).sum(), (said & ~real).sum(), (~said & real).sum(), (~said & ~real).sum())


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_the_calibration_is_that_of_all_pixels(seed: int, classes: int) -> None:
    p, truth = image(seed, classes)
    found = curves.calibration_of_bins(add_steps([counted(p, truth)], classes).answers)
    valid = truth != VOID
    expected = curves.calibration(p.max(0)[valid], (p.argmax(0) == truth)[valid])
    for own, other in zip(found, expected):
        np.testing.assert_allclose(own, other, rtol=1e-6)


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_images_add_up_to_one_large_image(seed: int, images: int) -> None:
    parts = [image(seed + i, 4) for i in range(images)]
    whole = counted(np.concatenate([p for p, _ in parts], 1), np.concatenate([truth for _, truth in parts]))
    summed = add_steps([counted(*part) for part in parts], 4)
    np.testing.assert_array_equal(summed.histogram, add_steps([whole], 4).histogram)
    np.testing.assert_allclose(summed.answers, whole.answers, rtol=1e-6)


def test_a_class_that_is_not_labelled_counts_nowhere() -> None:
    p, truth = image(3, 3)
    truth[truth == 2] = VOID
    valid = int((truth != VOID).sum())
    found = add_steps([counted(p, truth, [True, True, False])], 3)
    assert found.histogram.sum((1, 2)).tolist() == [valid, valid, 0]
    assert found.answers[0].sum() == valid


def test_void_counts_nowhere_and_nan_is_no_confidence() -> None:
    p, truth = image(3, 3, void=0)
    empty = add_steps([counted(p, np.full_like(truth, VOID))], 3)
    assert not empty.histogram.any()
    assert np.isnan(curves.calibration_of_bins(empty.answers).error)
    others = truth.copy()
    others[0, 0] = VOID
    p[:, 0, 0] = np.nan  # its other pixels stay what they are
    difference = add_steps([counted(p, truth)], 3).histogram - add_steps([counted(p, others)], 3).histogram
    assert difference.sum((1, 2)).tolist() == difference[:, :, 0].sum(1).tolist() == [1, 1, 1]


def test_a_curve_of_pixels_is_one_of_thresholds() -> None:
    histogram = np.zeros((2, len(THRESHOLDS)), np.int64)
    histogram[1, [10, 40]] = 3, 1
    histogram[0, [0, 10]] = 5, 1
    curve = curve_of_pixels(histogram)
    at = curve.at(np.array([0, 0.1, 0.5, 0.8, 0.9]))
    assert at.recall == pytest.approx([1, 1, 0.25, 0.25, 0])
    assert at.precision == pytest.approx([0.4, 0.8, 1, 1, 1])
    assert curves.mean_curve([curve]).threshold == pytest.approx(0.2)  # type: ignore[union-attr]
    nothing = curve_of_pixels(np.zeros_like(histogram))
    assert (nothing.truths, len(nothing.score)) == (0, 0)


def test_an_image_stays_small() -> None:
    """Of 150 classes all but five are nowhere near, as in most images."""
    p, truth = image(0, 150, (256, 256))
    p[5:] /= 100
    assert sum(a.nbytes for a in counted(p, truth % 5)) < 8000

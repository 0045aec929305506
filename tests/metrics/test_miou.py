"""Metrics of pixels, against counts by hand and an independent formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddptrain.metrics import miou
from ddptrain.structures import VOID


def test_by_hand() -> None:
    truth = np.array([[0, 0, 0, 1], [1, 1, VOID, 2]], np.uint8)
    found = np.array([[0, 0, 1, 1], [1, 0, 2, 3]], np.uint8)
    matrix = miou.confusion([miou.count_cells(truth, found, 4)], 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    out = miou.score(matrix, ["a", "b", "c", "d"])
    assert out["class/a/IoU"] == out["class/b/IoU"] == 0.5
    assert out["class/c/IoU"] == 0
    assert np.isnan(out["class/d/IoU"])  # not in the truth
    assert out["mIoU"] == pytest.approx(1 / 3)
    assert out["pixel_accuracy"] == pytest.approx(4 / 7)
    assert out["mean_accuracy"] == pytest.approx((2 / 3 + 2 / 3) / 3)
    assert out["one_answer"] == pytest.approx(3 / 7)


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(2, 9))
def test_any_split_of_images_gives_the_same_and_matches_sets(seed: int, images: int, classes: int) -> None:
    r = np.random.default_rng(seed)
    truths = [r.choice([*range(classes), VOID], (7, 5)).astype(np.uint8) for _ in range(images)]
    founds = [r.integers(0, classes, (7, 5), dtype=np.uint8) for _ in range(images)]
    cells = [miou.count_cells(t, f, classes) for t, f in zip(truths, founds)]
    matrix = miou.confusion(cells, classes)
    np.testing.assert_array_equal(matrix, sum(miou.confusion([c], classes) for c in cells[::-1]))
    truth, found = np.concatenate(truths).ravel(), np.concatenate(founds).ravel()
    for k, iou in enumerate(miou.intersection_over_union(matrix)):
        real, said = (truth == k), (found == k) & (truth != VOID)
        expected = (real & said).sum() / (real | said).sum() if real.any() else np.nan
        np.testing.assert_equal(iou, expected)


def test_nothing_to_find() -> None:
    out = miou.score(np.zeros((2, 2), np.int64), ["a", "b"])
    assert all(np.isnan(v) for v in out.values())

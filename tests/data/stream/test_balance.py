"""Weights of images by the classes of their boxes, worked out by hand; the shares of the datasets stay exact."""

from __future__ import annotations

import numpy as np
import pytest

from ddptrain.data.stream.balance import Balance, Boxes
from ddptrain.data.stream.sampler import DistributedWeightedSampler

# a: 4 images, three show class 0, one of them class 1 twice, one shows nothing; b: 2 images, one shows class 1
A = Boxes(4, np.array([0, 0, 1, 2, 2, 2]), np.array([0, 0, 0, 0, 1, 1]), 2)
B = Boxes(2, np.array([1]), np.array([1]), 2)


def balance(kind: str, together: bool = False, threshold: float = 0.5) -> Balance:
    return Balance(kind, threshold, together, [3, 1], [A, B])


def test_repeat_factors() -> None:
    """LVIS: max over an image's classes of max(1, sqrt(t / f)). In a, f is 3/4 and 1/4; over the mixture with shares
    3 : 1 it is 3/4 · 3/4 = 9/16 and 3/4 · 1/4 + 1/4 · 1/2 = 5/16."""
    a, b = balance("repeat_factor").weights()
    np.testing.assert_allclose(a, [1, 1, np.sqrt(2), 1])
    np.testing.assert_allclose(b, [1, 1])
    a, b = balance("repeat_factor", together=True).weights()
    np.testing.assert_allclose(a, [1, 1, np.sqrt(0.5 * 16 / 5), 1])
    np.testing.assert_allclose(b, [1, np.sqrt(0.5 * 16 / 5)])


def test_every_class_has_the_same_total_weight() -> None:
    a, b = balance("class_balanced").weights()
    np.testing.assert_allclose(a, [4 / 3, 4 / 3, 4 / 3 + 4, 0])
    np.testing.assert_allclose(b, [0, 2])
    # an image drawn for class 0 or for class 1: each class adds the same to the sum of the weights
    assert sum(a) == pytest.approx(2 * 4)


def test_image_weights_by_frequency_and_by_ap() -> None:
    """YOLOv5: an image weighs the sum over its boxes of (1 / n_c) (1 - AP_c)²; here n is 4 and 2."""
    a, b = balance("image_weights").weights()
    np.testing.assert_allclose(np.array(a) / a[1], [2, 1, 1 + 4, 0])
    np.testing.assert_allclose(np.array(b) / b[1], [0, 1])
    a, b = balance("image_weights").weights([0.5, np.nan])
    np.testing.assert_allclose(np.array(a) / a[1], [2, 1, 1 + 4 * 4, 0])
    # nothing is left to learn: all alike
    assert balance("image_weights").weights([1.0, 1.0]) == [None, None]


@pytest.mark.parametrize("kind", ["image_weights", "repeat_factor", "class_balanced"])
def test_draws_of_empty_tiles_keep_their_part(kind: str) -> None:
    """Two of six draws, whatever the others weigh."""
    tiles = Boxes(6, np.array([0, 0, 1, 2, 2, 2, 3]), np.array([0, 0, 0, 0, 1, 1, 1]), 2, empty=2)
    (weights,) = Balance(kind, 0.9, False, [1], [tiles]).weights()
    assert weights is not None
    assert weights[4] == weights[5] == pytest.approx(weights.sum() / 6)
    assert len(set(weights[:4].round(9))) > 1
    nothing = Boxes(2, np.array([], np.int64), np.array([], np.int64), 2, empty=2)  # a dataset of nothing but background
    alike = Balance(kind, 0.9, True, [1, 1], [tiles, nothing]).weights()[1]
    assert alike is None or alike.tolist() == [1, 1]


def test_what_images_show() -> None:
    assert A.count(np.array([2, 2, 3, 0])).tolist() == [3, 2]
    assert B.count(np.array([], np.int64)).tolist() == [0, 0]
    assert A.expect(np.array([0.5, 1, 2, 9])).tolist() == [3.5, 2]


@pytest.mark.parametrize("kind", ["image_weights", "repeat_factor", "class_balanced"])
def test_shares_stay_exact_and_other_weights_hold_from_their_position_on(kind: str) -> None:
    """What stands before the position of a change is as it was; from there to the end of the epoch each image comes floor or
    ceil of what the new weights ask for; later epochs likewise."""
    own = balance(kind)
    sampler = DistributedWeightedSampler(
        [4, 2], [3, 1], sample_weights=own.weights(), samples_per_epoch=48, block=8, num_replicas=1, rank=0, seed=3
    )
    positions = np.arange(96)
    dataset, before = sampler.keys(positions)
    for end in range(8, 97, 8):
        assert np.bincount(dataset[:end]).tolist() == [end * 3 // 4, end // 4]
    other = [np.array([1.0, 2, 3, 4]), np.array([5.0, 1])]
    fingerprint = sampler.fingerprint
    sampler.reweigh(other, 24)
    assert sampler.fingerprint != fingerprint
    again, after = sampler.keys(positions)
    assert np.array_equal(again, dataset)
    for start, end in ((24, 48), (48, 96)):
        for d, weights in enumerate(other):
            visits = np.bincount(after[start:end][dataset[start:end] == d], minlength=len(weights))
            asked = visits.sum() * weights / weights.sum()
            assert (np.abs(visits - asked) < 1).all(), (start, d, visits, asked)
    sampler.reweigh(own.weights(), 24)
    _, once_more = sampler.keys(positions[:24])
    assert np.array_equal(once_more, before[:24])

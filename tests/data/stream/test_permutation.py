"""A permutation that is a formula: a bijection for every length, and near-uniform over all permutations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddptrain.data.stream.permutation import permute, subkeys
from ddptrain.seeding import stream_key

KEY = stream_key(7, "test")


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_it_is_a_bijection(n: int, key: int) -> None:
    image = permute(np.arange(n), n, np.array([key], np.uint64))
    assert np.array_equal(np.sort(image), np.arange(n))


@settings(deadline=None)
@given(st.integers(1, 2**62 - 1), st.data())
def test_any_length_stays_in_range_and_does_not_collide(n: int, data: st.DataObject) -> None:
    i = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=50, unique=True)))
    image = permute(i, n, subkeys(KEY, np.array([n])))
    assert len(np.unique(image)) == len(i)
    assert ((image >= 0) & (image < n)).all()


def test_an_image_does_not_depend_on_what_else_is_asked() -> None:
    keys = subkeys(KEY, np.arange(1000) // 10)
    i = np.arange(1000) % 37
    alone = [int(permute(i[j : j + 1], 37, keys[j : j + 1])[0]) for j in range(1000)]
    assert permute(i, 37, keys).tolist() == alone


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7])
def test_all_permutations_of_few_are_equally_likely(n: int) -> None:
    kinds = math.factorial(n)
    draws = 100 * kinds
    keys = subkeys(KEY, np.arange(draws))
    code = sum(permute(np.full(draws, i), n, keys) * n**i for i in range(n))
    seen, count = np.unique(code, return_counts=True)
    assert len(seen) == kinds
    assert excess(count, draws / kinds) < 5


@pytest.mark.parametrize("n", [8, 9, 11, 12, 16, 17, 31, 32, 64, 100, 255, 256])
def test_pairs_of_neighbours_are_equally_likely_anywhere(n: int) -> None:
    draws = 100_000
    keys = subkeys(KEY, np.arange(draws))
    for i, j in ((0, 1), (n - 2, n - 1), (0, n // 2), (1, n - 1)):
        a, b = (permute(np.full(draws, v), n, keys) for v in (i, j))
        cells = 8 if n > 31 else n
        joint = np.bincount(a * cells // n * cells + b * cells // n, minlength=cells**2)
        # expected counts leave out the pairs in which both have the same image
        side = np.bincount(np.arange(n) * cells // n, minlength=cells)
        ways = side[:, None] * side - np.diag(side)
        keep = ways.ravel() > 0
        assert excess(joint[keep], draws * ways.ravel()[keep] / (n * (n - 1))) < 5


@pytest.mark.parametrize("n", [1000, 10**6, 10**10])
def test_long_orders_have_no_trend(n: int) -> None:
    """Images of neighbours, and of one element under neighbouring keys, fill a grid of cells evenly."""
    draws, cells = 200_000, 16
    keys = subkeys(KEY, np.arange(draws))
    i = np.arange(draws) % (n - 1)
    one, next_ = permute(i, n, keys), permute(i + 1, n, keys)
    other = permute(i, n, np.roll(keys, 1))
    for a, b in ((i, one), (one, next_), (one, other)):
        joint = np.bincount(a * cells // n * cells + b * cells // n, minlength=cells**2).reshape(cells, cells)
        rows = joint.sum(1, keepdims=True)
        assert excess(joint[rows[:, 0] > 0], (rows / cells)[rows[:, 0] > 0]) < 5


def excess(count: np.ndarray, expected: np.ndarray | float) -> float:
    """By how many standard deviations chi-square lies above its mean."""
    freedom = count.size - 1
    return float((((count - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize("outside", [-1, 5])
def test_what_is_outside_the_range_is_refused(outside: int) -> None:
    """Its cycle need not lead into the range: following it could take for ever."""
    with pytest.raises(ValueError, match=f"{outside} is not inside 0..4|{outside}..4 is not inside|0..{outside} is not"):
        permute(np.array([0, 4, outside]), 5, np.array([KEY], np.uint64))

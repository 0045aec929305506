"""Counts of the datasets at block boundaries: exact for any shares, any block, anywhere in the stream."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ddptrain.data.stream.counts import BlockCounts, scaled_floor
from ddptrain.data.stream.rare import Timetable, two_way_round

PLACES = st.one_of(st.just(0), st.integers(0, 10**6), st.integers(10**11, 10**15))
WEIGHTS = st.one_of(
    st.lists(st.integers(0, 30), min_size=1, max_size=9),
    st.lists(st.integers(1, 10**17), min_size=1, max_size=6),
    st.tuples(st.integers(1, 10**17), st.integers(1, 10**17), st.integers(1, 10**9)).map(list),
    st.lists(st.sampled_from([1, 10, 100, 1000]), min_size=3, max_size=7),
).filter(any)


def assert_exact(weights: list[int], block: int, blocks: np.ndarray) -> None:
    counts = BlockCounts(weights, block).counts(blocks)
    assert (counts.sum(1) == blocks * block).all()
    together = np.diff(blocks) == 1
    assert (np.diff(counts, axis=0)[together] >= 0).all(), "a dataset loses a draw"
    for k, row in zip(blocks.tolist(), counts.tolist()):
        for count, weight in zip(row, weights):
            assert abs(count * sum(weights) - weight * k * block) < sum(weights)


@settings(deadline=None, max_examples=150)
@given(WEIGHTS, st.sampled_from([1, 2, 3, 7, 8, 16, 64, 256, 1000]), PLACES)
def test_off_by_less_than_one_at_every_block(weights: list[int], block: int, place: int) -> None:
    rare = [w for w in weights if 0 < w * block < sum(weights)]
    assume(len(rare) < 3 or sum(weights) < 10**4 * min(rare))  # a longer timetable is right too, but slow
    assert_exact(weights, block, place // block + np.arange(100))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 300), min_size=3, max_size=12), st.integers(1, 8), st.integers(0, 10**9))
def test_the_timetable_is_exact_across_its_cuts(weights: list[int], block: int, span: int) -> None:
    total = sum(weights) + max(weights)
    length = Timetable(weights, total, block)._span
    assert_exact([*weights, total - sum(weights)], block, max(span * length - 60, 0) + np.arange(120))


def test_a_long_stretch_of_many_rare_datasets() -> None:
    assert_exact([997, 101, 53, 53, 7, 3, 2, 1], 4, np.arange(40_000))


def test_the_counts_do_not_depend_on_what_was_asked_before() -> None:
    weights, block = [9973, 997, 101, 53, 7, 5], 8
    far = 10**10 + np.arange(50)
    fresh = BlockCounts(weights, block).counts(far)
    used = BlockCounts(weights, block)
    used.counts(np.arange(0, 10**6, 9999))
    assert np.array_equal(used.counts(far[::-1])[::-1], fresh)


@settings(deadline=None)
@given(st.integers(0, 2**60), st.integers(0, 10**30), st.integers(1, 10**30), st.booleans())
def test_scaled_floor_is_exact(k: int, a: int, q: int, up: bool) -> None:
    a %= q
    got = scaled_floor(np.array([k, k + 7]), a, q, np.array([up, up])).tolist()
    assert got == [(n * a + up * (q - 1)) // q for n in (k, k + 7)]


@settings(deadline=None)
@given(st.lists(st.integers(1, 99), min_size=2, max_size=40), st.randoms(use_true_random=False))
def test_two_way_rounding_keeps_all_partial_sums(due: list[int], random: object) -> None:
    lacking = -sum(due) % 100
    due = [*due, lacking] if lacking else due
    one, two = list(range(len(due))), list(range(len(due)))
    random.shuffle(two)  # type: ignore[attr-defined]
    up = two_way_round(due, 100, one, two)
    for order in (one, two):
        exact, rounded = 0, 0
        for d in order:
            exact, rounded = exact + due[d], rounded + 100 * (d in up)
            assert abs(exact - rounded) < 100


def test_shares_too_far_apart_are_refused_with_a_block_that_would_do() -> None:
    weights = [10**18, 10**12, 10**12, 1]
    with pytest.raises(ValueError, match="use a block of at least 1000003,"):
        BlockCounts(weights, 256)
    assert_exact(weights, 1000003, 10**12 + np.arange(100))

"""What stands in the stream of DistributedWeightedSampler: promises 1 to 6 of docs/sampler.md (7 to 9: test_sampler_use.py)."""

import itertools
import time
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from ddptrain.data import DistributedWeightedSampler
from ddptrain.distributed import rank_and_size

SIZES = st.lists(st.integers(1, 400), min_size=1, max_size=5)
FAR = 10**12


def stream(sampler: DistributedWeightedSampler, first: int, count: int) -> np.ndarray:
    """Pairs (dataset, index) at `count` positions from `first`: int64 [count, 2]."""
    return np.stack(sampler.keys(np.arange(first, first + count)), 1)


# 1. exact counts


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1e3).filter(lambda s: s == 0 or s > 1e-3), min_size=1, max_size=6).filter(any),
    st.sampled_from([1, 5, 16, 48, 256]),
    st.sampled_from([0, FAR]),
)
def test_counts_in_the_stream_are_within_one_of_share_times_position(shares: list[float], block: int, near: int) -> None:
    s = DistributedWeightedSampler([100] * len(shares), shares, block=block)
    first = near // block * block
    before = s.mixture.drawn(first)
    dataset = s.keys(np.arange(first, first + 30 * block))[0]
    exact = [Fraction(repr(x)) for x in shares]
    for k in range(31):
        count = before + np.bincount(dataset[: k * block], minlength=len(shares))
        for c, share in zip(count.tolist(), exact):
            assert abs(c - share / sum(exact) * (first + k * block)) < 1


@pytest.mark.parametrize("shares", [[1 / 3, 0.1, 1e-6], [0.7, 0.2, 0.1], [1.0, 0.5], [1e-6, 1e-6, 1e-6, 1]])
def test_awkward_shares_do_not_drift_in_a_million_million_positions(shares: list[float]) -> None:
    s = DistributedWeightedSampler([1000] * len(shares), shares)
    exact = [Fraction(repr(x)) for x in shares]
    for position in (256 * 4, 256 * 10**6, 256 * 10**10, 256 * (10**13 + 1)):
        for count, share in zip(s.mixture.drawn(position).tolist(), exact):
            assert abs(count - share / sum(exact) * position) < 1


def test_a_half_is_not_truncated_to_nothing() -> None:
    s = DistributedWeightedSampler([50, 50], [1.0, 0.5], block=3)
    assert (np.bincount(s.keys(np.arange(3000))[0]) == [2000, 1000]).all()


def test_a_share_of_zero_is_never_drawn() -> None:
    s = DistributedWeightedSampler([50, 0, 50], [1, 0, 1])
    assert set(s.keys(np.arange(10_000))[0].tolist()) == {0, 2}


def test_without_shares_every_sample_comes_once_an_epoch() -> None:
    s = DistributedWeightedSampler([70, 20, 10], block=10)
    assert sorted(s) == list(range(100))
    assert sorted(s) == list(range(100))


@pytest.mark.parametrize(("temperature", "expected"), [(1, [0.9, 0.09, 0.01]), (2, None), (float("inf"), [1 / 3] * 3)])
def test_temperature(temperature: float, expected: list[float] | None) -> None:
    rows = DistributedWeightedSampler([900, 90, 10], temperature=temperature).plan()
    if expected is None:
        expected = (np.sqrt([900, 90, 10]) / np.sqrt([900, 90, 10]).sum()).tolist()
    assert np.allclose([r.share for r in rows], expected)


# 2. no repeats before a pass is over


@settings(deadline=None)
@given(
    SIZES,
    st.data(),
    st.sampled_from([1, 7, 32, 256]),
    st.integers(1, 500),
)
def test_no_sample_comes_again_before_all_came(
    sizes: list[int], data: st.DataObject, block: int, samples_per_epoch: int
) -> None:
    shares = data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    s = DistributedWeightedSampler(sizes, shares, block=block, samples_per_epoch=samples_per_epoch)
    keys = stream(s, 0, 3000)
    for d, size in enumerate(sizes):
        index = keys[keys[:, 0] == d, 1]
        for one_pass in np.array_split(index, np.arange(size, len(index), size)):
            assert len(np.unique(one_pass)) == len(one_pass)
            assert ((one_pass >= 0) & (one_pass < size)).all()


def test_a_small_share_is_walked_through_over_epochs() -> None:
    s = DistributedWeightedSampler([1000, 300], [9, 1], samples_per_epoch=500, block=20)
    small = []
    for epoch in range(6):
        s.set_epoch(epoch)
        small += [i for i in s if i >= 1000]
    assert sorted(small) == list(range(1000, 1300))


# 3. well mixed


def excess(count: np.ndarray, expected: np.ndarray, freedom: int | None = None) -> float:
    """By how many standard deviations chi-square lies above its mean; the sums of rows and columns are given."""
    freedom = freedom or (count.shape[0] - 1) * (count.shape[1] - 1)
    return float((((count - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize("block", [16, 64, 256])
def test_no_slot_of_a_batch_and_no_rank_is_tied_to_a_dataset(block: int) -> None:
    s = DistributedWeightedSampler([5000, 5000, 5000], [5, 2, 1], block=block)
    dataset = s.keys(np.arange(4000 * block))[0].reshape(4000, block)
    by_slot = np.stack([np.bincount(column, minlength=3) for column in dataset.T])
    assert abs(excess(by_slot, 4000 * np.array([[5, 2, 1]]) / 8)) < 5
    for size in (2, 8):
        by_rank = by_slot.reshape(-1, size, 3).sum(0)
        assert excess(by_rank, by_rank.sum(1, keepdims=True) * np.array([[5, 2, 1]]) / 8) < 5


def test_first_positions_over_seeds_are_even() -> None:
    first = [stream(DistributedWeightedSampler([8, 8], seed=seed, block=16), 0, 3) for seed in range(800)]
    for place in range(3):
        count = np.zeros((2, 8))
        for keys in first:
            count[tuple(keys[place])] += 1
        assert excess(count, np.full((2, 8), 50.0), freedom=15) < 5


def test_seeds_epochs_and_passes_are_unrelated() -> None:
    n = 4096
    s = DistributedWeightedSampler([n], seed=0)
    orders = [stream(s, k * n, n)[:, 1] for k in range(4)]
    orders += [stream(DistributedWeightedSampler([n], seed=seed), 0, n)[:, 1] for seed in (1, 2)]
    for a, b in itertools.combinations(orders, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n)
        assert (a == b).sum() < 10  # one is expected
        # neighbours in one order are not neighbours in the other
        assert (np.abs(np.diff(np.argsort(a)[b])) == 1).sum() < 15  # two are expected


def test_two_blocks_have_unrelated_patterns() -> None:
    s = DistributedWeightedSampler([1000, 1000], block=256)
    pattern = s.keys(np.arange(256 * 400))[0].reshape(400, 256) - 0.5
    correlation = pattern @ pattern.T / 64
    assert np.abs(correlation - np.eye(400)).max() < 6 / 16


# 4. independence of the number of ranks


@settings(deadline=None, max_examples=50)
@given(SIZES, st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(12, 900), st.sampled_from([12, 24]), st.booleans())
def test_ranks_interleave_to_one_stream(sizes: list[int], size: int, epoch: int, block: int, weigh: bool) -> None:
    weights = (np.arange(sum(sizes)) + 1.0) if weigh else None
    options = {"sample_weights": weights, "samples_per_epoch": epoch, "block": block}
    whole = DistributedWeightedSampler(sizes, **options)
    dataset, index = whole.keys(np.arange(3 * epoch + 3 * size))
    stream_ = np.cumsum([0, *sizes])[dataset] + index
    ranks = [DistributedWeightedSampler(sizes, num_replicas=size, rank=r, **options) for r in range(size)]
    drawn: list[list[int]] = [[] for _ in ranks]
    for _ in range(3):
        lengths = []
        for r, s in enumerate(ranks):
            length = len(s)
            part = list(s)
            assert len(part) == length
            drawn[r] += part
            lengths.append(length)
        assert len(set(lengths)) == 1
    together = np.array(drawn).T.ravel()
    # nothing padded, nothing dropped: three epochs are the first positions, up to less than one round of the ranks
    assert np.array_equal(together, stream_[: len(together)])
    assert 0 <= len(together) - 3 * epoch < size


def test_a_step_is_the_same_for_any_split_over_ranks() -> None:
    batch = 24
    whole = stream(DistributedWeightedSampler([300, 40], [1, 1], block=batch), 77 * batch, batch)
    for size in (2, 3, 8, 24):
        parts = [
            DistributedWeightedSampler([300, 40], [1, 1], block=batch, num_replicas=size, rank=r).keys(
                77 * batch + r + size * np.arange(batch // size)
            )
            for r in range(size)
        ]
        assert sorted(zip(*np.concatenate(parts, axis=1))) == sorted(map(tuple, whole))


def test_any_subset_in_any_order_gives_the_same_keys() -> None:
    s = DistributedWeightedSampler([30, 7, 500], [3, 2, 2], block=32, sample_weights=np.arange(537.0))
    whole = stream(s, 0, 5000)
    order = np.random.default_rng(0).permutation(5000)[:1234]
    assert np.array_equal(np.stack(s.keys(order), 1), whole[order])


def _worker(rank: int, size: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    assert rank_and_size() == (rank, size)
    s = DistributedWeightedSampler([60, 9], [2, 1], block=8, samples_per_epoch=64)
    torch.save(list(s), f"{folder}/{rank}.pt")
    torch.distributed.barrier()  # no rank leaves while another still connects
    torch.distributed.destroy_process_group()


def test_rank_and_size_come_from_the_process_group(tmp_path: Path) -> None:
    mp.spawn(_worker, (2, str(tmp_path)), nprocs=2)
    parts = [torch.load(tmp_path / f"{r}.pt") for r in range(2)]
    whole = list(DistributedWeightedSampler([60, 9], [2, 1], block=8, samples_per_epoch=64))
    assert [i for pair in zip(*parts) for i in pair] == whole


# 5. stateless and fast


def jump() -> int:
    s = DistributedWeightedSampler([9 * 10**9, 10**9 - 7, 7], [5, 3, 1e-3], num_replicas=64, rank=3)
    s.set_epoch(10**6)
    s.position = FAR
    return next(iter(s))


def test_a_jump_to_far_away_takes_no_time_and_no_memory() -> None:
    times = []
    for _ in range(5):
        start = time.process_time()
        jump()
        times.append(time.process_time() - start)
    assert min(times) < 0.010
    tracemalloc.start()
    jump()
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("shares", [None, [3, 2, 1], [1, 1e-3, 1e-6]])
def test_iteration_is_fast(shares: list[float] | None) -> None:
    """2 million indices a second and more here (benchmarks/sampler.py); half of it, so that slow machines pass."""
    s = DistributedWeightedSampler([10**8, 10**6, 10**4], shares, samples_per_epoch=10**8)
    it = iter(s)
    rates = []
    for _ in range(4):
        start = time.process_time()
        count = sum(1 for _ in itertools.islice(it, 200_000))
        rates.append(count / (time.process_time() - start))
    assert max(rates) > 1e6


# 6. weights of samples


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(0, 100), min_size=30, max_size=30).filter(lambda w: sum(w[:20]) > 1 and sum(w[20:]) > 1),
    st.integers(1, 300),
    st.sampled_from([8, 256]),
    st.integers(0, 50),
)
def test_visits_per_epoch_are_within_one_of_expected(w: list[float], draws: int, block: int, epoch: int) -> None:
    s = DistributedWeightedSampler([20, 10], [1, 1], sample_weights=w, samples_per_epoch=draws, block=block)
    dataset, index = s.keys(np.arange(epoch * draws, (epoch + 1) * draws))
    for d, part in ((0, w[:20]), (1, w[20:])):
        mine = index[dataset == d]
        expected = np.array(part) / sum(part) * len(mine)
        assert (np.abs(np.bincount(mine, minlength=len(part)) - expected) < 1 + 1e-6).all()


def test_without_shares_visits_are_proportional_to_weight_over_the_whole_concatenation() -> None:
    w = np.random.default_rng(1).random(500) ** 3
    s = DistributedWeightedSampler([300, 200], sample_weights=w, samples_per_epoch=5000, block=50)
    visits = np.bincount(list(s), minlength=500)
    assert np.abs(visits - w / w.sum() * 5000).max() < 1.5  # a dataset's draws are themselves within 1


def test_only_some_datasets_may_have_weights() -> None:
    s = DistributedWeightedSampler([4, 4], [1, 1], sample_weights=[None, [3, 1, 0, 0]], samples_per_epoch=32, block=8)
    assert np.bincount(list(s), minlength=8).tolist() == [4, 4, 4, 4, 12, 4, 0, 0]


def test_the_weights_are_held_once_as_float64() -> None:
    w = np.random.default_rng(0).random(10**6)
    tracemalloc.start()
    s = DistributedWeightedSampler([10**6], sample_weights=w)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 8e6 <= kept < 8.2e6
    assert len(s) == 10**6


@settings(deadline=None)
@given(st.integers(1, 200), st.sampled_from([3, 10, 16, 64]))
def test_other_weights_hold_from_any_position_on(since: int, block: int) -> None:
    """Also from inside a block: in the rest of the epoch each sample is visited as often as its weight asks for."""
    sizes, epoch = (30, 20), 50
    weights = [np.linspace(1, 3, n) for n in sizes]
    s = DistributedWeightedSampler(sizes, [1, 1], sample_weights=weights, samples_per_epoch=epoch, block=block)
    s.reweigh(weights, since)
    dataset, index = stream(s, since, epoch - since % epoch).T
    for d, w in enumerate(weights):
        visits = np.bincount(index[dataset == d], minlength=len(w))
        assert np.abs(visits - np.sum(dataset == d) * w / w.sum()).max() < 1

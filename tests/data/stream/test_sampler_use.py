"""How DistributedWeightedSampler resumes, refuses, fits in: promises 7 to 9 of docs/sampler.md (1 to 6: test_sampler.py)."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset

from ddptrain.data import DistributedWeightedSampler

# 7. resume


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 200), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]))
def test_a_resumed_stream_continues_where_it_stopped(done: int, before: int, after: int) -> None:
    def make(size: int) -> list[DistributedWeightedSampler]:
        options = {"block": 8, "samples_per_epoch": 80, "num_replicas": size, "seed": 5}
        return [DistributedWeightedSampler([70, 9], [1, 1], rank=r, **options) for r in range(size)]

    def endless(s: DistributedWeightedSampler) -> itertools.chain:
        return itertools.chain.from_iterable(iter(lambda: list(s), None))

    through = list(itertools.islice(endless(make(1)[0]), 400))
    first = make(before)
    done = done // 4 * 4 // before
    drawn = [i for r in zip(*(itertools.islice(endless_one(s), done) for s in first)) for i in r]
    states = [s.state_dict() for s in first]
    assert all(state == states[0] for state in states)
    second = make(after)
    for s in second:
        s.load_state_dict(states[0])
    drawn += [i for r in zip(*(itertools.islice(endless(s), 120 // after) for s in second)) for i in r]
    assert drawn == through[: len(drawn)]


def endless_one(s: DistributedWeightedSampler) -> itertools.chain:
    """Epoch after epoch, lazily, so that the position stands at the last index taken."""
    return itertools.chain.from_iterable(iter(lambda: iter(s), None))


def test_set_epoch_after_a_resume_inside_that_epoch_does_not_start_it_again() -> None:
    s = DistributedWeightedSampler([100], block=10)
    part = list(itertools.islice(iter(s), 30))
    again = DistributedWeightedSampler([100], block=10)
    again.load_state_dict(s.state_dict())
    again.set_epoch(0)
    rest = list(again)
    assert sorted(part + rest) == list(range(100))
    again.set_epoch(0)
    assert list(again) == part + rest
    again.load_state_dict(s.state_dict())
    again.set_epoch(3)
    assert again.position == 300


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sizes": [10, 21]}, "sizes"),
        ({"shares": [2, 1.5]}, "shares"),
        ({"block": 8}, "block was 4 and is 8 now"),
        ({"seed": 1}, "seed was 0 and is 1 now"),
        ({"samples_per_epoch": 44}, "samples_per_epoch was 40 and is 44"),
        ({"shuffle": False}, "shuffle was True and is False"),
        ({"sample_weights": [1.0] * 29 + [2.0]}, "sample_weights"),
    ],
)
def test_a_state_of_another_stream_is_refused(change: dict, says: str) -> None:
    options = {"sizes": [10, 20], "shares": [2, 1], "block": 4, "samples_per_epoch": 40}
    options["sample_weights"] = [1.0] * 30 if "sample_weights" in change else None
    s = DistributedWeightedSampler(**options)
    other = DistributedWeightedSampler(**{**options, **change})
    assert s.fingerprint != other.fingerprint
    with pytest.raises(ValueError, match=says):
        other.load_state_dict(s.state_dict())


def test_proportional_shares_have_one_fingerprint() -> None:
    a, b = (DistributedWeightedSampler([10, 20], shares) for shares in ([2, 1], [1.0, 0.5]))
    assert a.fingerprint == b.fingerprint
    for one, other in zip(a.keys(np.arange(500)), b.keys(np.arange(500)), strict=True):
        assert np.array_equal(one, other)


# 8. errors


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shares": [1, -2]}, "b: share -2 is not"),
        ({"shares": [float("nan"), 1]}, "a: share nan is not"),
        ({"shares": [1, float("inf")]}, "b: share inf is not"),
        ({"shares": [0, 0]}, "all are 0"),
        ({"shares": [1, 1, 1]}, "3 shares for 2 datasets"),
        ({"sizes": [10, 0], "shares": [1, 0.5]}, "b: share 0.5 of an empty dataset"),
        ({"sizes": [10, -1]}, "b: size -1"),
        ({"sizes": [0, 0]}, "all 2 datasets are empty"),
        ({"sizes": [], "names": []}, "no dataset"),
        ({"num_replicas": 4, "rank": 4}, "rank: 4 is outside 0..3"),
        ({"num_replicas": 0}, "num_replicas: 0"),
        ({"rank": -1}, "rank: -1"),
        ({"sample_weights": [1.0] * 29}, r"shape \(29,\) for 30 samples"),
        ({"sample_weights": [[1.0] * 10, [1.0] * 21]}, r"b: sample_weights of shape \(21,\) for 20"),
        ({"sample_weights": [[1.0] * 10, [0.0] * 20], "shares": [1, 1]}, "b: all its sample_weights are 0"),
        ({"temperature": 0}, "temperature: 0"),
        ({"temperature": float("nan")}, "temperature: nan"),
        ({"temperature": 2, "shares": [1, 1]}, "give one of them"),
        ({"samples_per_epoch": 0}, "samples_per_epoch: 0"),
        ({"block": 2.5}, "block: 2.5"),
        ({"names": ["a"]}, "1 names for 2"),
    ],
)
def test_mistakes_name_the_dataset_and_the_value(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DistributedWeightedSampler(**{"sizes": [10, 20], "names": ["a", "b"], **options})


def test_impossible_places_are_refused() -> None:
    s = DistributedWeightedSampler([10])
    with pytest.raises(ValueError, match="epoch: -1"):
        s.set_epoch(-1)
    with pytest.raises(ValueError, match=r"position: 1\.5"):
        s.position = 1.5  # type: ignore[assignment]


# 9. works with what people have


class Numbers(Dataset[int]):
    def __init__(self, first: int, count: int):
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> int:
        return self.first + i


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_dataloader_with_any_number_of_workers_gives_the_stream(workers: int) -> None:
    data = ConcatDataset([Numbers(0, 90), Numbers(90, 10)])
    s = DistributedWeightedSampler(data, [2, 1], block=16, samples_per_epoch=96)
    loader = DataLoader(data, batch_size=16, sampler=s, num_workers=workers)
    got = []
    for epoch in range(2):
        s.set_epoch(epoch)
        assert len(loader) == 6
        got += [batch.tolist() for batch in loader]
    reference = DistributedWeightedSampler([90, 10], [2, 1], block=16, samples_per_epoch=96)
    assert list(itertools.chain(*got)) == [*reference, *reference]
    for batch in got:
        assert 4 < sum(i >= 90 for i in batch) < 7


def test_it_needs_no_set_epoch() -> None:
    data = TensorDataset(torch.arange(40))
    s = DistributedWeightedSampler([40])
    loader = DataLoader(data, batch_size=10, sampler=s)
    one, two = (torch.cat([x for (x,) in loader]).tolist() for _ in range(2))
    assert one != two
    assert sorted(one) == sorted(two) == list(range(40))


def test_unshuffled_keeps_the_order_of_each_dataset() -> None:
    s = DistributedWeightedSampler([6, 4], [1, 1], shuffle=False, samples_per_epoch=12, block=4)
    assert list(s) == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 6, 7]
    assert list(DistributedWeightedSampler([5], shuffle=False)) == [0, 1, 2, 3, 4]

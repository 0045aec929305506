"""Batches reach the device one ahead of the computing, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from loader_streams import Numbers, assert_equal

from ddptrain.data.loading.ahead import on_device, one_ahead
from ddptrain.data.loading.loader import Loader
from ddptrain.structures import Batch, SampleKey


@pytest.mark.parametrize("count", [0, 1, 5])
def test_each_item_comes_once_the_next_one_has_been_taken(count: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(count):
            taken.append(i)
            yield i

    for i in one_ahead(items()):
        assert taken == list(range(min(i + 2, count)))
    assert list(one_ahead(range(count))) == list(range(count))


def batches(count: int) -> list[Batch]:
    keys = iter([[SampleKey(4 * step + i, 0, i) for i in range(4)] for step in range(count)])
    return list(Loader(Numbers(), keys, 0, False))


def test_on_the_cpu_nothing_is_taken_ahead_or_copied() -> None:
    own = batches(3)
    stream = iter(own)
    first = next(on_device(stream, torch.device("cpu")))
    assert first is own[0]
    assert len(list(stream)) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks for a GPU")
def test_copies_on_a_stream_of_their_own_arrive_whole() -> None:
    """While the GPU is kept busy."""
    device, own = torch.device("cuda", 0), batches(20)
    work = torch.randn(2048, 2048, device=device)
    for batch, expected in zip(islice(on_device((b.pin_memory() for b in own), device), 20), own, strict=True):
        for _ in range(5):
            work = torch.tanh(work @ work)
        assert_equal(batch.to(torch.device("cpu")), expected)

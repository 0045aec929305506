"""Batches on their way from host memory to the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeVar

import torch

from ddptrain.structures import Batch

T = TypeVar("T")


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on the device. To a GPU each is copied while the one before it is computed with, on a stream of its own."""
    if device.type != "cuda":
        return (batch.to(device) for batch in batches)
    stream = _stream(device)

    def copied(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return batch.to(device), stream.record_event()

    def arrived(batch: Batch, event: torch.cuda.Event) -> Batch:
        computing = torch.cuda.current_stream(device)
        computing.wait_event(event)
        # its memory is the copying stream's, which must not reuse it before
        batch.map(lambda t: t.record_stream(computing) if t.is_cuda else None)
        return batch

    return (arrived(*pair) for pair in one_ahead(copied(batch) for batch in batches))


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """For all copies to a device: torch keeps the memory of each stream for itself."""
    return torch.cuda.Stream(device)


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, each only once the one after it has been taken."""
    before: list[T] = []
    for item in items:
        yield from before
        before = [item]
    yield from before

"""The batches that a run trains on, from where its state is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ddptrain.data.loading.batches import train_loader
from ddptrain.data.loading.costs import Costs
from ddptrain.data.loading.loader import Loader, Wait
from ddptrain.engine.state import RunState
from ddptrain.structures import Batch
from ddptrain.tasks.base import Task


def batches_from(state: RunState, task: Task, rank: int = 0, wait: Wait | None = None, costs: Costs | None = None) -> Loader:
    """The part of a rank in the micro batches that follow, without end; see `train_loader`."""
    split = state.split
    return train_loader(
        task.train,
        state.sampler.keys,
        position=state.position,
        steps=None,
        global_batch=split.global_batch,
        micro_batch=split.micro_batch,
        rank=rank,
        world_size=split.world_size,
        workers=task.config.data.workers,
        pin_memory=state.stepper.device.type == "cuda",
        wait=wait,
        costs=costs,
    )


class Supply:
    """An iterator over a rank's batches on the device, without end. Where other weights hold from the state's position on, what
    the loader has made ahead is not what comes next: it restarts there, with the same batches on any number of ranks."""

    def __init__(
        self, state: RunState, load: Callable[[], Loader], on_device: Callable[[Iterable[Batch]], Iterator[Batch]]
    ) -> None:
        """
        Args:
            load: makes a loader that begins at the state's position.
            on_device: brings its batches to the device.
        """
        self._state, self._load, self._on_device = state, load, on_device
        self._begin()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._state.sampler.since != self._since:
            self.close()
            self._begin()
        return next(self._batches)

    def _begin(self) -> None:
        self._since, self._loader = self._state.sampler.since, self._load()
        self._batches = self._on_device(self._loader)

    def close(self) -> None:
        """End the loader."""
        self._loader.close()

    def __enter__(self) -> Supply:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

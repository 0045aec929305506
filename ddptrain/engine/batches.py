"""The batches that a run trains on, from where its state is."""

from __future__ import annotations

from ddptrain.data.loading.batches import train_loader
from ddptrain.data.loading.costs import Costs
from ddptrain.data.loading.loader import Loader, Wait
from ddptrain.engine.state import RunState
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

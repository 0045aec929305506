"""Which samples make which batch: one stream for the whole training run, every image once in evaluation."""

from collections.abc import Iterator, Sequence

import numpy as np

from ddptrain.data.loading.costs import Costs
from ddptrain.data.loading.loader import Loader, Wait
from ddptrain.data.loading.workers import Samples
from ddptrain.structures import KeysOf, SampleKey


def train_loader(
    samples: Samples,
    keys_of: KeysOf,
    *,
    position: int,
    steps: int | None,
    global_batch: int,
    micro_batch: int,
    rank: int,
    world_size: int,
    workers: int,
    pin_memory: bool = False,
    wait: Wait | None = None,
    costs: Costs | None = None,
) -> Loader:
    """One rank's part of the stream from `position` on, without a break between epochs.

    Micro batch m of step s holds the positions from `position + s * global_batch + m * micro_batch` on. Every rank takes an
    equal run of a step's micro batches, one after the other: which samples are together does not depend on the ranks.

    Args:
        position: where the stream starts, any int >= 0; a large one costs no more than 0.
        steps: number of steps; None for no end.
        global_batch: samples per step over all ranks, a multiple of `micro_batch * world_size`.
        micro_batch: samples per batch.
        workers: processes; 0 loads in this one. The batches do not depend on it.
        pin_memory: copy batches to page-locked memory (CUDA).
        wait: how long to wait for a batch, and where problems are reported.
        costs: which batches are measured, and where their seconds are counted.
    """
    if micro_batch < 1 or global_batch % (micro_batch * world_size):
        raise ValueError(
            f"global_batch {global_batch} is not a multiple of micro_batch {micro_batch} x world_size {world_size}"
        )
    samples_of_rank = global_batch // world_size

    def batches() -> Iterator[list[SampleKey]]:
        own = np.arange(rank * samples_of_rank, (rank + 1) * samples_of_rank, dtype=np.int64)
        step = 0
        while steps is None or step < steps:
            positions = own + (position + step * global_batch)
            keys = [SampleKey(*k) for k in np.stack([positions, *keys_of(positions)], -1).tolist()]
            for first in range(0, samples_of_rank, micro_batch):
                yield keys[first : first + micro_batch]
            step += 1

    return Loader(samples, batches(), workers, pin_memory, wait, costs=costs)


def eval_loader(
    samples: Samples,
    sizes: Sequence[int],
    *,
    batch: int,
    rank: int,
    world_size: int,
    workers: int,
    pin_memory: bool = False,
    shapes: Sequence[np.ndarray] | None = None,
    wait: Wait | None = None,
) -> Loader:
    """One rank's part of every image of every dataset, once.

    The images of all datasets, one after the other, are cut into groups of `batch`; group g goes to rank
    `g % world_size`. So no image is repeated or left out, and which images share a batch does not depend on the number
    of ranks. A rank may get no group at all.

    Args:
        sizes: number of images of each dataset of `samples`; a key's position counts through all of them.
        batch: images per group; the last one may be smaller.
        shapes: int `[n, 2]` for each dataset, the shape of each image where they differ; a group then has images of one shape.
        wait: as for `train_loader`.
    """

    def batches() -> Iterator[list[SampleKey]]:
        starts = np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))])
        order, first = _groups(int(starts[-1]), batch, shapes)
        for group in range(rank, len(first) - 1, world_size):
            positions = order[first[group] : first[group + 1]]
            dataset = np.searchsorted(starts, positions, side="right") - 1
            yield [SampleKey(*k) for k in np.stack([positions, dataset, positions - starts[dataset]], -1).tolist()]

    return Loader(samples, batches(), workers, pin_memory, wait)


def _groups(total: int, batch: int, shapes: Sequence[np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
    """The positions in the order in which they are evaluated, and where in it the groups begin, and the last one ends."""
    shape = np.zeros((total, 2), np.int64) if shapes is None else np.concatenate(shapes)
    order = np.lexsort(shape.T)
    change = np.append(True, (np.diff(shape[order], axis=0) != 0).any(1))[:total]
    starts = np.flatnonzero(change)
    within = np.arange(total) - np.repeat(starts, np.diff(starts, append=total))
    return order, np.append(np.flatnonzero(within % batch == 0), total)

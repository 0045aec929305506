"""Which samples make which batch: one stream for the whole training run, every image once in evaluation."""

from collections.abc import Iterator, Sequence

import numpy as np

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
    accumulation: int,
    rank: int,
    world_size: int,
    workers: int,
    pin_memory: bool = False,
    wait: Wait | None = None,
) -> Loader:
    """One rank's part of the stream from `position` on, without a break between epochs.

    Step s takes the positions `position + s * global_batch + rank + world_size * j`, j = 0, 1, ..., and yields them
    as `accumulation` micro batches in this order, equal in size up to one sample. All ranks together take every
    position once.

    Args:
        position: where the stream starts, any int >= 0; a large one costs no more than 0.
        steps: number of steps; None for no end.
        global_batch: samples per step over all ranks, a multiple of `world_size`.
        accumulation: micro batches per step, at most `global_batch / world_size`.
        workers: processes; 0 loads in this one. The batches do not depend on it.
        pin_memory: copy batches to page-locked memory (CUDA).
        wait: how long to wait for a batch, and where problems are reported.
    """
    if global_batch % world_size:
        raise ValueError(f"global_batch {global_batch} is not a multiple of world_size {world_size}")
    if not 1 <= accumulation <= global_batch // world_size:
        raise ValueError(f"accumulation {accumulation} is not in 1..{global_batch // world_size}")

    def batches() -> Iterator[list[SampleKey]]:
        own = np.arange(rank, global_batch, world_size, dtype=np.int64)
        step = 0
        while steps is None or step < steps:
            positions = own + (position + step * global_batch)
            keys = [SampleKey(*k) for k in np.stack([positions, *keys_of(positions)], -1).tolist()]
            for part in np.array_split(np.arange(len(keys)), accumulation):
                yield keys[part[0] : part[-1] + 1]
            step += 1

    return Loader(samples, batches(), workers, pin_memory, wait)


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

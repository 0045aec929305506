"""`train.micro_batch: auto`: how many samples are forwarded at once, by trial. The bits of a run depend on it, so that what was
found becomes part of its config, and a resumed run keeps it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ddptrain import distributed
from ddptrain.config.batch import AT_ONCE, split_batch
from ddptrain.distributed import World
from ddptrain.engine.arithmetic import autocast
from ddptrain.engine.memory import OPTIMIZER_COPIES
from ddptrain.engine.network import build_network
from ddptrain.engine.resume import find_origin
from ddptrain.errors import UserError
from ddptrain.models.norms import refuse_single_values
from ddptrain.structures import Batch, SampleKey
from ddptrain.system.printable import listing
from ddptrain.tasks.base import Task

SECONDS = 20.0
"""After so long no further pass is timed."""
REPEATS = 3
"""Passes of each size that are timed; the fastest counts."""
USED = 0.85
"""Part of a GPU's free memory that may be taken; the rest is for sums of gradients over micro batches, and for fragments."""


def sizes(per_rank: int) -> list[int]:
    """The micro batches that divide what a rank computes of a step, rising."""
    return [n for n in range(1, per_rank + 1) if per_rank % n == 0]


def largest_that_fits(candidates: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The last of rising candidates before the first that does not fit; None where none does."""
    found = None
    for size in candidates:
        if not fits(size):
            break
        found = size
    return found


def fastest(
    candidates: Sequence[int], run: Callable[[int], object], budget_s: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[int, dict[int, float]]:
    """The candidate whose passes take least for each sample.

    Args:
        run: makes a pass of so many samples.
        budget_s: after so many seconds no further pass begins.

    Returns:
        The candidate, and of those that were timed (at least one) the seconds for each sample.
    """
    begin = clock()
    found: dict[int, float] = {}
    for _ in range(REPEATS):
        for size in candidates:
            if found and clock() - begin > budget_s:
                break
            before = clock()
            run(size)
            found[size] = min(found.get(size, float("inf")), (clock() - before) / size)
    return min(found, key=found.__getitem__), found


def choose_micro_batch(task: Task, world: World) -> None:
    """Put a number in the place of `auto` in the task's config, the same on every rank, and note how it was found: that of the
    checkpoint from which the run resumes; on GPUs the largest that fits on all of them; on the CPU the fastest on rank 0."""
    train = task.config.train

    def before() -> int | None:
        checkpoint = find_origin(task.config, lambda line: None).checkpoint
        return None if checkpoint is None else checkpoint.state.get("micro_batch")

    kept = None if task.config.resume is None else distributed.on_main(before, "the search for a checkpoint")
    if kept is not None:
        try:
            split_batch(train.global_batch, kept, world.size)
        except UserError as e:
            why = str(e).removeprefix("train.micro_batch: ")
            raise UserError(f"train.micro_batch: auto keeps {kept} from the checkpoint: {why}") from None
        found, how = kept, f"keeps {kept}, with which the run was trained so far"
    else:
        candidates = sizes(train.global_batch // world.size)
        own = distributed.agree(lambda: _try_sizes(task, world, candidates), "trying micro batches")
        everyone = distributed.gather_objects(own, "trying micro batches")
        found, how = min(everyone) if world.device.type == "cuda" else everyone[0]
        how = f"chose {found} of {listing([str(n) for n in candidates], 'or')}: {how}"
    task.config = task.config.model_copy(update={"train": train.model_copy(update={"micro_batch": found})})
    task.notes.append(f"train.micro_batch: auto {how}; the bits of the run depend on it, and a resumed run keeps it")


def _try_sizes(task: Task, world: World, candidates: Sequence[int]) -> tuple[int, str]:
    """What this rank would choose, and why."""
    config, device = task.config, world.device
    cuda = device.type == "cuda"
    tried = candidates if cuda else [n for n in candidates if n <= AT_ONCE]
    positions = np.arange(tried[-1])
    samples = [task.train[SampleKey(*map(int, key))] for key in zip(positions, *task.sampler.keys(positions))]
    model = build_network(task).to(device)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model.train()

    def run(size: int) -> None:
        batch: Batch = task.at_largest(task.train.collate(samples[:size]).to(device))
        with autocast(device, config.train.precision), refuse_single_values(batch.images.shape[-1]):
            loss = task.loss(model, batch)
        loss.total.backward()
        model.zero_grad(set_to_none=False)

    try:
        run(1)
    except UserError:  # a batch norm that would see a single value
        if len(tried) == 1:
            raise
        tried = tried[1:]
    if not cuda:
        size, seconds = fastest(tried, run, SECONDS)
        return size, ", ".join(f"{n} takes {1e3 * s:.3g} ms a sample" for n, s in sorted(seconds.items()))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    others = weights * (OPTIMIZER_COPIES[config.optimizer.name] + 2 + int(config.ema.enabled))  # two: sums of gradients
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)

    def fits(size: int) -> bool:
        torch.cuda.reset_peak_memory_stats(device)
        try:
            run(size)
        except torch.cuda.OutOfMemoryError:
            return False
        finally:
            torch.cuda.empty_cache()
        return torch.cuda.max_memory_reserved(device) + others <= USED * free

    size = largest_that_fits(tried, fits) or tried[0]
    return size, f"the largest that takes at most {USED:.0%} of {free / 2**30:.0f} GB that are free on each GPU"

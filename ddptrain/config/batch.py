"""How a global batch is divided over ranks and accumulation steps. The launcher refuses what training would refuse."""

from __future__ import annotations

from dataclasses import dataclass

from ddptrain.errors import UserError


@dataclass(frozen=True)
class Split:
    """`global_batch = micro_batch * accumulation * world_size`, exactly."""

    global_batch: int
    micro_batch: int
    accumulation: int
    world_size: int


def split_batch(global_batch: int, micro_batch: int, world_size: int) -> Split:
    """The fewest equal micro batches of at most `micro_batch` samples on each rank.

    Raises:
        UserError: the global batch does not divide over the ranks; names the nearest sizes that do.
    """
    local, rest = divmod(global_batch, world_size)
    if rest or local == 0:
        near = [n for n in (local * world_size, (local + 1) * world_size) if n > 0]
        raise UserError(
            f"train.global_batch: {global_batch} does not divide over {world_size} ranks; "
            f"set it to {' or '.join(map(str, near))}, the nearest that do"
        )
    accumulation = next(a for a in range(1, local + 1) if local % a == 0 and local // a <= micro_batch)
    return Split(global_batch, local // accumulation, accumulation, world_size)

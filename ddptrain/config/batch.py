"""How a global batch is divided into micro batches and over ranks. The launcher refuses what training would refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ddptrain.errors import UserError

AT_ONCE = 16
"""Most samples that a rank forwards at once where the config does not say."""


@dataclass(frozen=True)
class Split:
    """`global_batch = micro_batch * accumulation * world_size`, exactly."""

    global_batch: int
    micro_batch: int
    accumulation: int
    world_size: int

    @property
    def micro_batches(self) -> int:
        """Of a step, over all ranks."""
        return self.accumulation * self.world_size


MicroBatch = int | Literal["auto"] | None
"""The values of `train.micro_batch`."""


def split_batch(global_batch: int, micro_batch: MicroBatch, world_size: int) -> Split:
    """The split of `train.global_batch` over a number of ranks.

    Args:
        micro_batch: `train.micro_batch`, one of the whole global batch where it is larger. None, or `auto` before it is
            replaced by a number: the fewest equal ones of at most `AT_ONCE` samples on each rank.

    Raises:
        UserError: the global batch, or its micro batches, do not divide over the ranks; names the nearest numbers that do.
    """
    micro_batch = None if micro_batch == "auto" else micro_batch
    per_rank, rest = divmod(global_batch, world_size)
    fixed = None if micro_batch is None else min(micro_batch, global_batch)
    if rest or per_rank == 0:
        unit = world_size * (micro_batch or 1)
        near = [n for n in (global_batch // unit * unit, (global_batch // unit + 1) * unit) if n > 0]
        given = "" if micro_batch is None else f" with train.micro_batch={micro_batch}"
        raise UserError(
            f"train.global_batch: {global_batch} does not divide over {world_size} ranks; "
            f"set it to {_either(near)}, the nearest {'that does' if len(near) == 1 else 'that do'}{given}"
        )
    sizes = [b for b in range(1, per_rank + 1) if per_rank % b == 0]  # of micro batches on that number of ranks
    if fixed is None:
        fixed = max(b for b in sizes if b <= AT_ONCE)
    elif fixed not in sizes:
        near = [*[b for b in sizes if b < fixed][-1:], *[b for b in sizes if b > fixed][:1]]
        count, whole = divmod(global_batch, fixed)
        if whole:
            what = f"{fixed} does not divide train.global_batch={global_batch}" + f" on {world_size} ranks" * (world_size > 1)
            raise UserError(f"train.micro_batch: {what}; set it to {_either(near)}, the nearest")
        ranks = [r for r in range(1, count + 1) if count % r == 0]
        near_ranks = [*[r for r in ranks if r < world_size][-1:], *[r for r in ranks if r > world_size][:1]]
        batches = "1 micro batch" if count == 1 else f"{count} micro batches"
        raise UserError(
            f"train.micro_batch: {global_batch} samples are {batches} of {fixed}, which {world_size} ranks cannot share; start "
            f"{_either(near_ranks)} rank{'s' * (near_ranks != [1])}, the nearest, or set train.micro_batch to "
            f"{_either(near)}, with which other weights are learned"
        )
    return Split(global_batch, fixed, per_rank // fixed, world_size)


def evaluated_at_once(batch: int | None, micro_batch: MicroBatch) -> int:
    """Samples that an evaluation forwards at once, on any number of ranks: `eval.batch`, else `train.micro_batch`."""
    return batch or (micro_batch if isinstance(micro_batch, int) else AT_ONCE)


def _either(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers))

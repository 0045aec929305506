"""Before the first update all ranks must run the same code on the same config and stream, and share its positions exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ddptrain import distributed
from ddptrain.distributed import World
from ddptrain.engine.state import RunState
from ddptrain.errors import UserError
from ddptrain.structures import Batch
from ddptrain.system.code import code_version


def check_ranks(config: str, world: World, state: RunState, batches: Sequence[Batch]) -> None:
    """Compare config (as JSON), code, stream and the global batch at `state.position`, of which `batches` are this rank's part,
    over the ranks; one gather. Raises `UserError` on every rank alike, naming what differs and where."""
    if world.size == 1:
        return
    mine = {
        "config": hashlib.blake2b(config.encode(), digest_size=6).hexdigest(),
        "code": code_version(),
        "sampler": state.sampler.fingerprint,
        "step": str(state.step),
    }
    positions = [p for b in batches for p in b.keys[:, 0].tolist()]
    ranks = distributed.gather_objects((mine, positions), "the comparison of the ranks")
    for rank, (theirs, _) in enumerate(ranks):
        for what, value in ranks[0][0].items():
            if theirs[what] != value:
                raise UserError(
                    f"rank {rank} differs from rank 0 in {what} ({theirs[what]} against {value}); "
                    "start every rank with the same files and arguments"
                )
    read = sorted(p for _, part in ranks for p in part)
    expected = list(range(state.position, state.position + state.split.global_batch))
    if read != expected:
        raise UserError(
            f"the ranks together read positions {_spans(read)}, not {_spans(expected)}; "
            "two launchers may have started ranks of this run: check the rendezvous"
        )


def _spans(positions: list[int]) -> str:
    return f"{positions[0]}..{positions[-1]} ({len(positions)}, {len(set(positions))} different)" if positions else "none"

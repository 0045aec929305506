"""The process group, held open around a run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from ddptrain.distributed import last_words
from ddptrain.distributed.meeting import meet
from ddptrain.distributed.waiting import Group, NoStop, RankLost, Stop, Waiting, Watch, say
from ddptrain.distributed.world import World
from ddptrain.errors import RankFailed

_ENDING_S = 30.0
"""After an error, how long this rank may take to leave the others (NCCL may wait for them)."""


@contextmanager
def process_group(world: World, timeout_s: float, stop: Stop | None = None) -> Iterator[None]:
    """Hold the process group open (NCCL on CUDA, gloo on the CPU); nothing at all for a single process.

    Args:
        timeout_s: seconds a collective may wait for the slowest rank before the run ends.
        stop: the stop signals that came; None for a command that has no handlers.
    """
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if world.size == 1:
        yield
        return
    stop = stop or NoStop()
    store = meet(world, timeout_s, stop)
    hosts = tuple(row.decode().split(" ", 2)[2] for row in store.multi_get([f"at/{r}" for r in range(world.size)]))
    Waiting.group, Waiting.begun = Group(world.rank, world.size, store, hosts), 0
    try:
        with Watch(Waiting.group, stop):
            _open(world, timeout_s, store)
            yield
    except RankLost:
        raise
    except BaseException as e:
        # the others will miss this rank, and ask
        last_words.leave(store, world.rank, f"ended with {type(e).__name__}: {' '.join(str(e).split())[:200]}")
        late = threading.Timer(_ENDING_S, _leave, [f"failed: rank {world.rank}: {e}", stop])
        late.daemon = True
        late.start()
        raise
    finally:
        failed = sys.exc_info()[0] is not None
        if dist.is_initialized():
            dist.destroy_process_group()
        if failed and world.main:
            last_words.let_ask(store, world.rank, world.size)
        Waiting.group = None


def _leave(line: str, stop: Stop) -> None:
    say(line)
    stop.leave(1)


def _open(world: World, timeout_s: float, store: dist.Store) -> None:
    backend = "nccl" if world.device.type == "cuda" else "gloo"
    try:
        with Waiting("the start of the process group"):
            dist.init_process_group(
                backend,
                store=store,
                rank=world.rank,
                world_size=world.size,
                timeout=timedelta(seconds=timeout_s),
                device_id=world.device if backend == "nccl" else None,
            )
    except ValueError as e:
        raise RankFailed(f"rank {world.rank}: the process group could not be opened: {e}") from None

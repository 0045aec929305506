"""The process group, held open around a run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ddptrain.distributed import last_words, peers
from ddptrain.distributed.meeting import meet
from ddptrain.distributed.waiting import Group, NoStop, RankLost, Stop, Waiting, Watch, say
from ddptrain.distributed.world import World
from ddptrain.errors import RankFailed, RunFailed, UserError

_ENDING_S = 120.0
"""After an error, how long this rank may take to clean up (it waits for a save that has begun)."""
_START_S = 300.0
"""How long the communicator may take to start, once all ranks are there."""


@contextmanager
def process_group(world: World, timeout_s: float, stop: Stop | None = None) -> Iterator[None]:
    """Hold the process group open; nothing at all for a single process. What is on a GPU goes through NCCL, all else, and every
    object, through gloo, which notices lost ranks by itself.

    On the normal way out, and after an error that all ranks met alike, it is closed. After an error of one rank it stays open:
    NCCL would wait for the other ranks, which sit in a collective. `system.processes.end_with` then ends the process.

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
    peers.announce(store, world.rank)
    hosts = tuple(row.decode().split(" ", 2)[2] for row in store.multi_get([f"at/{r}" for r in range(world.size)]))
    Waiting.group, Waiting.begun = Group(world.rank, world.size, store, hosts), 0
    alike = True
    try:
        with Watch(Waiting.group, stop), last_word(stop):
            _open(world, timeout_s, store, hosts)
            yield
    except BaseException as e:
        alike = isinstance(e, (UserError, RunFailed)) and e.everywhere
        raise
    finally:
        if alike and dist.is_initialized():
            dist.destroy_process_group()
        if not alike and world.main:
            last_words.let_ask(store, world.rank, world.size)
        Waiting.group = None


@contextmanager
def last_word(stop: Stop | None = None) -> Iterator[None]:
    """Around what this rank alone may fail in: the other ranks, which will miss it, hear of its error before it cleans up."""
    try:
        yield
    except RankLost:
        raise
    except BaseException as e:
        group = Waiting.group
        if group is not None:
            last_words.leave(group.store, group.rank, last_words.of(e))
            late = threading.Timer(_ENDING_S, _leave, [f"rank {group.rank}: {e}", stop or NoStop()])
            late.daemon = True
            late.start()
        raise


def _leave(line: str, stop: Stop) -> None:
    say(f"failed: {line}")
    stop.leave(1, line)


def _open(world: World, timeout_s: float, store: Any, hosts: tuple[str, ...]) -> None:
    on_gpu = world.device.type == "cuda"
    if on_gpu:
        _refuse_shared(world, store, hosts)
    try:
        with Waiting("the start of the process group", on_device=on_gpu, limit_s=_START_S):
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                store=store,
                rank=world.rank,
                world_size=world.size,
                timeout=timedelta(seconds=timeout_s),
                device_id=world.device if on_gpu else None,
            )
            if on_gpu:  # a communicator that does not work fails here, where its name is said
                ones = torch.ones(1, device=world.device)
                dist.all_reduce(ones)
                if int(ones.item()) != world.size:
                    raise RankFailed(
                        f"rank {world.rank}: an all-reduce of ones over the GPUs of {world.size} ranks gave {ones.item():g}"
                    )
    except ValueError as e:
        raise RankFailed(f"rank {world.rank}: the process group could not be opened: {e}") from None


def _refuse_shared(world: World, store: Any, hosts: tuple[str, ...]) -> None:
    """Raise where two ranks would compute on one GPU, which NCCL refuses without saying who."""
    store.set(f"gpu/{world.rank}", str(torch.cuda.get_device_properties(world.device).uuid))
    with Waiting("the comparison of the GPUs"):
        gpus = [gpu.decode() for gpu in store.multi_get([f"gpu/{r}" for r in range(world.size)])]
    if line := shared_gpu(list(zip(hosts, gpus))):
        error = UserError(line)
        error.everywhere = True
        raise error


def shared_gpu(places: list[tuple[str, str]]) -> str:
    """What to say where two ranks are at one place (machine, GPU); empty where none are."""
    for rank, place in enumerate(places):
        if (first := places.index(place)) < rank:
            return (
                f"ranks {first} and {rank} would share a GPU of {place[0]} ({place[1]}): start fewer ranks there, or give each "
                "its own GPU through CUDA_VISIBLE_DEVICES"
            )
    return ""

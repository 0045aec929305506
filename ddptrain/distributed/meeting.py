"""How ranks meet: in a store at `MASTER_ADDR`:`MASTER_PORT`, on rank 0 or on torchrun's agent, each says that it is there.

Everything here waits in Python, so that a signal ends it at once, and says every 10 s for whom. Under srun the place is by
default the step's first node and a port made of the job's number.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from ddptrain.distributed import last_words
from ddptrain.distributed.waiting import EVERY_S, Stop, ranks, say
from ddptrain.distributed.world import ALONE, World
from ddptrain.errors import RankFailed, UserError

_SAVING_S = 10.0
"""How long ranks are still waited for after a signal that asks for a save: a launcher starts all of them at once."""

_CONNECT_S = 3.0
_GONE_S = 20.0


def meet(world: World, timeout_s: float, stop: Stop, environ: MutableMapping[str, str] = os.environ) -> Any:
    """The store of all ranks, once all of them are there.

    Raises:
        UserError: no place to meet is given, it does not exist or is taken, or two starts share it.
        RankFailed: some rank did not come in time, or ended.
        SystemExit: a signal came.
    """
    if world.launcher == "srun":
        place_under_srun(environ)
    address, port = _place(environ)
    clock = _Clock(world, timeout_s, stop, f"{address}:{port}", environ)
    hosted = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if world.rank == 0 and not hosted:
        store = _serve(port, timeout_s, world)
    else:
        store = _join(address, port, timeout_s, clock, "torchrun's agent" if hosted else "rank 0")
    store = dist.PrefixStore("ddptrain", store)
    if store.add(f"starts/{world.rank}", 1) > 1 and not hosted:
        raise UserError(
            f"rank {world.rank} is at MASTER_ADDR={address} MASTER_PORT={port} already: two starts share this address, or two "
            f"processes have RANK={world.rank}; give each start a MASTER_PORT of its own and each rank its RANK"
        )
    store.set(f"at/{world.rank}", f"0 0 {host(environ)}")
    keys = {str(r): f"at/{r}" for r in range(world.size)}
    while not store.check([*keys.values()]):
        missing = [r for r, key in keys.items() if not store.check([key])] if clock.due else []
        here = [r for r in keys if r not in missing]
        words = ranks(missing) + _absent_hosts(store, here, environ) if missing and here[0] == str(world.rank) else ""
        if store.check([last_words.ANY]):
            raise RankFailed(f"rank {world.rank} waited for the others to start; {last_words.who(store, world.size)}")
        try:
            clock.wait(words)
        except SystemExit as e:
            last_words.leave(store, world.rank, f"ended with status {e.code} before the others had arrived")
            raise
        except RankFailed:
            raise RankFailed(clock.failure(ranks([r for r, key in keys.items() if not store.check([key])]))) from None
    return store


def host(environ: Mapping[str, str] = os.environ) -> str:
    """The name under which this machine is known to the user."""
    return environ.get("SLURMD_NODENAME") or socket.gethostname()


def _place(environ: Mapping[str, str]) -> tuple[str, int]:
    address, port = environ.get("MASTER_ADDR", "").strip(), environ.get("MASTER_PORT", "").strip()
    if not address or not port:
        key = "MASTER_PORT" if address else "MASTER_ADDR"
        raise UserError(
            f"RANK={environ.get('RANK')} and WORLD_SIZE={environ.get('WORLD_SIZE')} are set in the environment and {key} "
            f"is not; {ALONE}, or start the ranks with torchrun or `ddptrain train --nproc N`"
        )
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"MASTER_PORT={port} in the environment must be an integer from 1 to 65535; correct it, or {ALONE}")
    try:
        socket.getaddrinfo(address, int(port))
    except (OSError, UnicodeError):
        raise UserError(
            f"MASTER_ADDR={address} in the environment is not a host name that resolves here; set it to the machine "
            f"of rank 0, or {ALONE}"
        ) from None
    return address, int(port)


def _serve(port: int, timeout_s: float, world: World) -> Any:
    try:
        return dist.TCPStore("localhost", port, None, True, timedelta(seconds=timeout_s), wait_for_workers=False)
    except (dist.DistError, RuntimeError, ValueError) as e:
        why = "is used by another program" if "EADDRINUSE" in str(e) else f"cannot be opened ({' '.join(str(e).split())[:100]})"
        way = "" if world.launcher == "srun" else f", or {ALONE}"
        raise UserError(
            f"MASTER_PORT={port} {why} on this machine, where rank 0 is to open it; set MASTER_PORT to a free port "
            f"for all ranks{way}"
        ) from None


def _join(address: str, port: int, timeout_s: float, clock: _Clock, whose: str) -> Any:
    """A connection to the store, once there is one. In a thread: torch waits for ever for a foreign service in its place."""
    whom = f"{whose}, which holds the store,"
    refused = 0.0
    while not _listens(address, port):
        refused = refused or time.monotonic()
        if whose != "rank 0" and time.monotonic() - refused > _GONE_S:
            # the agent opens its store before it starts ranks
            raise RankFailed(f"{whose}, which held the store at {address}:{port}, is gone; start again")
        clock.wait(whom if clock.speaks else "", whom)
    stores: list[Any] = []  # the one, or why there is none

    def connect() -> None:
        try:
            stores.append(dist.TCPStore(address, port, None, False, timedelta(seconds=timeout_s), wait_for_workers=False))
        except (dist.DistError, RuntimeError, ValueError) as e:
            stores.append(e)

    threading.Thread(target=connect, name="meeting", daemon=True).start()
    while not stores:
        clock.wait(f"{whom} (something else answers there)" if clock.speaks else "", whom)
    if isinstance(stores[0], Exception):
        raise RankFailed(clock.failure(whom))
    return stores[0]


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


class _Clock:
    """Waits in small pieces: says for whom every 10 s, and ends at a signal or after too long."""

    def __init__(self, world: World, timeout_s: float, stop: Stop, place: str, environ: Mapping[str, str]) -> None:
        self._world, self._timeout_s, self._stop, self._place = world, timeout_s, stop, place
        by_hand = world.launcher == "torchrun" and "TORCHELASTIC_RUN_ID" not in environ
        self.speaks = world.local_rank == 0 or by_hand
        self._began = self._reported = time.monotonic()
        self._stopped = 0.0
        self._hint = ""
        if world.launcher == "srun":
            step = f"{environ.get('SLURM_JOB_ID')}.{environ.get('SLURM_STEP_ID')}"
            self._hint = f" (Slurm step {step} has {world.size} tasks, `srun ddptrain …` starts them all)"
        elif by_hand:
            self._hint = f" (the environment has RANK={world.rank} and WORLD_SIZE={world.size}; {ALONE})"

    @property
    def due(self) -> bool:
        """Whether it is time to say for whom."""
        return time.monotonic() - self._reported >= EVERY_S

    def wait(self, words: str, fail: str = "") -> None:
        """A tenth of a second; `words` say for whom when it is time, empty for silence."""
        now = time.monotonic()
        if (number := self._stop.signal) is not None:
            self._stopped = self._stopped or now
            if number in self._stop.at_once or now - self._stopped > _SAVING_S:
                raise SystemExit(128 + number)
        if now - self._began > self._timeout_s:
            raise RankFailed(self.failure(fail))
        if self.due:
            self._reported = now
            if words:
                waited = f"has waited {now - self._began:.0f} s at {self._place}"
                say(f"rank {self._world.rank} {waited} for {words} to start{self._hint}")
        time.sleep(0.1)

    def failure(self, whom: str) -> str:
        """The line of a wait that was in vain."""
        me, waited = f"rank {self._world.rank} of {self._world.size}", f"waited {self._timeout_s:g} s at {self._place}"
        return f"{me} {waited} for {whom} to start{self._hint}"


def _absent_hosts(store: Any, here: Sequence[str], environ: Mapping[str, str]) -> str:
    """The machines of a Slurm step from which nobody has come."""
    nodes = environ.get("SLURM_STEP_NODELIST", "")
    if not nodes:
        return ""
    present = {store.get(f"at/{r}").decode().split(" ", 2)[2] for r in here}
    absent = [n for n in _hostnames(nodes) if n not in present]
    return f" (no rank has arrived from {', '.join(absent)})" if absent else ""


def place_under_srun(environ: MutableMapping[str, str]) -> None:
    """Set `MASTER_ADDR` and `MASTER_PORT` where the user did not: the same on every task of a step.

    A node's name may not resolve (clusters with `NodeAddr`); then its address is asked of Slurm.
    """
    if "MASTER_ADDR" not in environ:
        nodes = environ.get("SLURM_STEP_NODELIST", environ.get("SLURM_JOB_NODELIST", "localhost"))
        first = next(_hostnames(nodes))
        try:
            socket.getaddrinfo(first, None)
        except OSError:
            address = re.search(r"NodeAddr=(\S+)", _scontrol("-o", "show", "node", first))
            first = address[1] if address else first
        environ["MASTER_ADDR"] = first
    step = f"{environ.get('SLURM_JOB_ID')}.{environ.get('SLURM_STEP_ID')}"
    # below the kernel's ephemeral range
    environ.setdefault("MASTER_PORT", str(20000 + zlib.crc32(step.encode()) % 12000))


def _hostnames(nodes: str) -> Iterator[str]:
    yield from _scontrol("show", "hostnames", nodes).split() or [nodes]


def _scontrol(*arguments: str) -> str:
    try:
        return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""

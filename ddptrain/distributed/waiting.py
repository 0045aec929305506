"""While ranks wait for each other: who is late is reported every 10 s, and none waits for one that has left word of its end.

Each rank counts its collectives. A thread of its own (`Watch`) writes to the store how many it has begun, so that those who
wait see who is behind. It costs the training nothing: a collective only notes that it begins and ends.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Protocol

import torch.distributed as dist

from ddptrain.distributed import last_words
from ddptrain.distributed.peers import Peers
from ddptrain.errors import RankFailed
from ddptrain.system.printable import first_few

EVERY_S = 10.0
"""How often a waiting rank says for whom it waits."""
_BEAT_S = 2.0
_LOST_S = 5.0
"""How long a rank that waits is left to itself after another one's end: with gloo it notices by itself, and ends in order."""
_STUCK_S = 15.0
"""The same for one that does not seem to wait: it may be in a kernel of NCCL, where nothing is noticed."""
_LOOK_S = 5.0
"""How often a rank that waits on a device looks for ranks that died without a message."""


class Stop(Protocol):
    """What a wait wants to know about stop signals.

    Attributes:
        signal: number of the signal that came, None while none did.
        at_once: signals after which nothing would be saved: they end a wait.
        leave: ends the process at once, with a status, and why where that is the run's failure.
    """

    @property
    def signal(self) -> int | None: ...

    @property
    def at_once(self) -> tuple[int, ...]: ...

    @property
    def leave(self) -> Callable[..., None]: ...


@dataclass(frozen=True)
class NoStop:
    """For commands that save nothing: Python's own handlers end them."""

    signal: int | None = None
    at_once: tuple[int, ...] = ()

    @staticmethod
    def leave(status: int, why: str = "") -> None:
        os._exit(status)


@dataclass(frozen=True)
class Group:
    """The ranks that have met.

    Attributes:
        store: through which they did.
        hosts: the machine of each.
    """

    rank: int
    size: int
    store: Any
    hosts: tuple[str, ...]


def say(text: str) -> None:
    """A line for the person who reads standard error."""
    print(f"ddptrain: {text}", file=sys.stderr, flush=True)


def ranks(named: Sequence[str]) -> str:
    """`rank 1`, `ranks 1, 2 and 5 more`."""
    return f"rank{'s' * (len(named) > 1)} {first_few(named)}"


class RankLost(RankFailed):
    """A collective failed because some rank did not come."""


class Waiting:
    """Around a collective: when it fails, say which rank waited, for how long, in what, and who did not come.

    With gloo the wait ends as soon as a rank is gone, or after `timeout_s` for one that is only slow. NCCL notices nothing:
    there `Watch` ends the process, some seconds after a rank has left word of its end or is found dead. A wait inside another
    one is where that one is.

    Attributes:
        group: the ranks that have met; None where there is one process.
        now: the collective that this rank is in; None outside.
        begun: collectives that it has begun.
    """

    group: ClassVar[Group | None] = None
    now: ClassVar[Waiting | None] = None
    begun: ClassVar[int] = 0

    def __init__(self, what: str, *, on_device: bool = False, limit_s: float = math.inf) -> None:
        """
        Args:
            on_device: the wait is in a kernel or for one, so that only `Watch` can end it.
            limit_s: after so long `Watch` ends the process.
        """
        self.what, self.on_device, self.limit_s, self.since = what, on_device, limit_s, 0.0
        self._outer: Waiting | None = None

    def __enter__(self) -> None:
        self.since, self._outer = time.monotonic(), Waiting.now
        self.on_device |= self._outer is not None and self._outer.on_device
        Waiting.begun += 1
        Waiting.now = self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        Waiting.now = self._outer
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            raise RankLost(self.failure()) from error

    def failure(self) -> str:
        """The line of a wait that was in vain."""
        group = Waiting.group
        waited = f"waited {time.monotonic() - self.since:.1f} s in {self.what}"
        if group is None:
            return waited
        return f"rank {group.rank} {waited}; {last_words.ask(group.store, group.rank, group.size, waited)}"


class Watch:
    """Context manager: the thread that looks after this rank's waits."""

    def __init__(self, group: Group, stop: Stop) -> None:
        self._group, self._stop = group, stop
        self._peers = Peers(group.rank, group.hosts)
        self._store: Any = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._beat = 0
        self._reported = self._beat_at = self._looked = 0.0
        self._begun = (0, time.monotonic())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join(1.0)  # in the middle of a look: the store must outlive it

    def _run(self) -> None:
        try:
            self._store = second_connection(self._group.store)
            while not self._end.wait(_BEAT_S / 4):
                self._look()
        except RuntimeError:  # the store is gone: so is the run, and a wait notices or has noticed it
            waiting, began = Waiting.now, time.monotonic()
            while not self._end.wait(0.5) and waiting is not None and Waiting.now is waiting:
                if time.monotonic() - began > _LOST_S:
                    self._leave(waiting.failure())

    def _look(self) -> None:
        waiting, now, group = Waiting.now, time.monotonic(), self._group
        if waiting is not None and now - waiting.since > 1 and self._stop.signal in self._stop.at_once:
            number = signal.Signals(self._stop.signal or 0)
            last_words.leave(self._store, group.rank, f"was ended by {number.name} before its first step")
            say(f"rank {group.rank}: {number.name} while it waited in {waiting.what}: exiting, there is nothing to save yet")
            self._stop.leave(128 + number)
        if now - self._beat_at > _BEAT_S:
            self._beat_at, self._beat = now, self._beat + 1
            self._peers.report(self._store, Waiting.begun, self._beat)
            self._report_lost(waiting, now)
        if waiting is not None and now - waiting.since > waiting.limit_s:
            self._leave(waiting.failure())
        if waiting is not None and waiting.on_device and now - max(waiting.since, self._looked) >= _LOOK_S:
            self._looked = now
            self._look_for_the_dead(waiting, now)
        if waiting is not None and now - max(waiting.since, self._reported) >= EVERY_S:
            self._reported = now
            self._report(waiting, now)

    def _report_lost(self, waiting: Waiting | None, now: float) -> None:
        """End this process when another rank has left word of its end and this one does not get any further."""
        if Waiting.begun != self._begun[0]:
            self._begun = (Waiting.begun, now)
        stuck, group = now - self._begun[1], self._group
        if stuck <= (_LOST_S if waiting else _STUCK_S) or not last_words.others(self._store, group.rank):
            return
        own = f"rank {group.rank} is stuck; {last_words.who(self._store, group.size)}"
        self._leave(own if waiting is None else waiting.failure())

    def _look_for_the_dead(self, waiting: Waiting, now: float) -> None:
        self._peers.look(self._store)
        if dead := list(self._peers.dead(self._store)):
            own = f"waited {now - waiting.since:.1f} s in {waiting.what}"
            last_words.leave(self._store, self._group.rank, own)
            self._leave(f"rank {self._group.rank} {own}; {first_few(dead, separator='; ')}")

    def _leave(self, line: str) -> None:
        say(f"failed: {line}")
        self._stop.leave(1, line)

    def _report(self, waiting: Waiting, now: float) -> None:
        """Report who is behind; of those who wait, the first one speaks."""
        begun = self._peers.look(self._store)
        behind = [r for r, number in enumerate(begun) if number < Waiting.begun and r != self._group.rank]
        if not behind or min(set(range(self._group.size)) - set(behind)) != self._group.rank:
            return
        silent = [r for r in behind if self._peers.silent(r, EVERY_S)]
        named = [f"{r} on {self._group.hosts[r]}" + " (not responding)" * (r in silent) for r in behind]
        waited = f"has waited {now - waiting.since:.0f} s in {waiting.what}"
        say(f"rank {self._group.rank} {waited} for {ranks(named)}")


def second_connection(store: Any) -> Any:
    """A connection of one's own to the same store: a wait in one must not hold up the other."""
    inner = store.underlying_store
    fresh = dist.TCPStore(inner.host, inner.port, None, False, timedelta(seconds=30), wait_for_workers=False)
    return dist.PrefixStore("ddptrain", fresh)

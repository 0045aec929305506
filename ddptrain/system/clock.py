"""A clock that knows where time goes: each moment counts to the innermost part that is open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Seconds(NamedTuple):
    """Of one thread.

    Attributes:
        wall: by the clock, waits included.
        cpu: computing.
    """

    wall: float
    cpu: float

    def plus(self, wall: float, cpu: float) -> Seconds:
        """The sum of both."""
        return Seconds(self.wall + wall, self.cpu + cpu)


NO_TIME = Seconds(0.0, 0.0)


class Clock:
    """The seconds of a thread by part, from the making of the clock on; they add up to all that have passed.

    Args:
        rest: what counts while no part is open.
        settle: called before each look at the clock, to wait for what was only started.
    """

    def __init__(self, rest: str, settle: Callable[[], None] = lambda: None) -> None:
        self._settle, self._open = settle, [rest]
        self._seconds: dict[str, Seconds] = {}
        self._since = self._now()

    def begin(self, part: str) -> None:
        """Open a part within the one that is open."""
        self._count()
        self._open.append(part)

    def end(self) -> None:
        """Close the part that was opened last."""
        self._count()
        self._open.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Around what counts to a part."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def read(self) -> dict[str, Seconds]:
        """The seconds so far of each part that took any."""
        self._count()
        return dict(self._seconds)

    def _count(self) -> None:
        now, part = self._now(), self._open[-1]
        passed = now.wall - self._since.wall, now.cpu - self._since.cpu
        self._seconds[part] = self._seconds.get(part, NO_TIME).plus(*passed)
        self._since = now

    def _now(self) -> Seconds:
        self._settle()
        return Seconds(time.perf_counter(), time.thread_time())

"""Which machines of a job still answer. Slurm may take minutes to notice a lost one, and never misses one that came back."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # noqa: TID251  # the agents' own store

BEAT_S = 2.0


class Peers:
    """Publishes a count in the job's store and reads those of the others; a machine whose count stands still is silent.

    Silence is measured in this machine's own beats: a job that was suspended as a whole has missed nothing.

    Args:
        host: the machine with the store. When the store does not answer, that machine alone counts as silent.
        me, others: names of the machines.
    """

    def __init__(self, store: TCPStore, host: str, me: str, others: Sequence[str]) -> None:
        self._store, self._host, self._me = store, host, me
        self._counts = dict.fromkeys(others, b"")
        self._quiet = dict.fromkeys(others, 0.0)
        self._left: set[str] = set()
        self._asking: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="peers", daemon=True).start()

    def _run(self) -> None:
        count, lost = 0, False
        while not self._closed.wait(BEAT_S if count else 0):
            count += 1
            self._asking = time.monotonic()
            try:
                if not lost:
                    self._ask(count)
            except RuntimeError:  # the machine with the store is gone; this connection stays broken
                lost = True
            if lost:
                self._quiet[self._host] = self._quiet.get(self._host, 0.0) + max(BEAT_S, time.monotonic() - self._asking)
            self._asking = None

    def close(self) -> None:
        """Stop counting: the store may go."""
        self._closed.set()

    def _ask(self, count: int) -> None:
        self._store.set(f"alive/{self._me}", str(count))
        for other, before in self._counts.items():
            if self._store.check([f"left/{other}"]):
                self._left.add(other)
            now = self._store.get(f"alive/{other}") if self._store.check([f"alive/{other}"]) else before
            self._quiet[other] = 0.0 if now != before else self._quiet[other] + BEAT_S
            self._counts[other] = now

    def silent(self, seconds: float, *, came: bool = True) -> list[str]:
        """Machines that have been silent for so long, of those that joined or (`came=False`) of those that did not."""
        since = self._asking
        if came and since is not None and time.monotonic() - since > seconds:
            return [self._host]
        late = (name for name, quiet in self._quiet.items() if quiet > seconds and name not in self._left)
        return sorted(name for name in late if bool(self._counts.get(name, b"0")) == came)

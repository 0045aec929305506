"""The other ranks as this one sees them through the store: where they are, how far they have come, whether they are alive."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ddptrain.system.processes import Process, this

SILENT_S = 20.0
"""How long a rank may go without a heartbeat before one that waits for it on a device considers it dead."""


def announce(store: Any, rank: int) -> None:
    """Let the other ranks know this process."""
    store.set(f"process/{rank}", json.dumps(asdict(this())))


class Peers:
    """What the ranks last reported, each in a row `<collectives begun> <heartbeat> <host>`.

    Attributes:
        hosts: the machine of each.
    """

    def __init__(self, rank: int, hosts: Sequence[str]) -> None:
        self.rank, self.hosts = rank, hosts
        self._processes: list[Process] = []
        self._rows = [""] * len(hosts)
        self._since = [time.monotonic()] * len(hosts)

    def report(self, store: Any, begun: int, beat: int) -> None:
        """Write this rank's own row."""
        store.set(f"at/{self.rank}", f"{begun} {beat} {self.hosts[self.rank]}")

    def look(self, store: Any) -> list[int]:
        """How many collectives each rank has begun."""
        rows, now = [row.decode() for row in store.multi_get([f"at/{r}" for r in range(len(self.hosts))])], time.monotonic()
        self._since = [now if row != old else since for row, old, since in zip(rows, self._rows, self._since)]
        self._rows = rows
        return [int(row.split(" ", 1)[0]) for row in rows]

    def silent(self, rank: int, seconds: float) -> bool:
        """Whether a rank has not responded for so long, as far as `look` has seen."""
        return time.monotonic() - self._since[rank] >= seconds

    def dead(self, store: Any) -> Iterator[str]:
        """The ranks that died without a message, and how this is known: at once where this process can see theirs, else by
        their silence."""
        if not self._processes:
            rows = store.multi_get([f"process/{r}" for r in range(len(self.hosts))])
            self._processes = [Process(**json.loads(text)) for text in rows]
        for rank, process in enumerate(self._processes):
            alive = rank == self.rank or process.alive()
            if alive is False:
                yield f"rank {rank} on {self.hosts[rank]} died without a message (killed, or out of memory)"
            elif alive is None and self.silent(rank, SILENT_S):
                yield f"rank {rank} on {self.hosts[rank]} has not responded for {SILENT_S:.0f} s"

"""Which process is meant, on which machine, and whether it is still alive."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process, distinguished from all others, even from a later one with the same number.

    Attributes:
        host: name of the machine.
        space: the machine's boot and the namespace of `pid` (a container has its own); equal only where the number means the
            same process.
        pid: its number.
        start: when it started, in the system's own unit; empty where the system does not say.
    """

    host: str
    space: str
    pid: int
    start: str

    def alive(self) -> bool | None:
        """Whether it is alive; None where this process cannot see that."""
        if self.space != _space() or self.host != os.uname().nodename:
            return None
        return is_alive(self.pid, self.start)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this() -> Process:
    """This process."""
    pid = os.getpid()
    return Process(os.uname().nodename, _space(), pid, _look(pid)[1])


def is_alive(pid: int, start: str = "") -> bool:
    """Whether a process of this machine is alive: neither gone, nor a zombie, nor a later one with the same number.

    Args:
        start: when it started (`Process.start`); empty for any.
    """
    state, began = _look(pid)
    return state not in ("", "Z", "X") and (not start or began == start)


def _look(pid: int) -> tuple[str, str]:
    """(state, start) of a process; two empty strings where it does not exist."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            return fields[0], fields[19]
        except (OSError, IndexError):
            return "", ""
    listing = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, start = listing.stdout.strip().partition(" ")
    return state[:1], re.sub(r"\W", "", start)


@functools.cache
def _space() -> str:
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)

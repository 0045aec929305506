"""Which process is meant, on which machine, and whether it still lives. No torch here: the launcher uses it too."""

from __future__ import annotations

import functools
import io
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process, told apart from all others, also from a later one with the same number.

    Attributes:
        host: the machine's name.
        space: the machine's boot and the namespace in which `pid` counts (a container has its own); equal only where the
            number means the same process.
        pid: its number.
        start: when it started, in the system's own unit; empty where the system does not say.
    """

    host: str
    space: str
    pid: int
    start: str

    def alive(self) -> bool | None:
        """Whether it lives; None where that cannot be seen from this process."""
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
    """Whether a process of this machine lives: neither gone nor a zombie, and not a later one of the same number.

    Args:
        start: when it started (`Process.start`); empty for any.
    """
    state, began = _look(pid)
    return state not in ("", "Z", "X") and (not start or began == start)


class _UntilHangup(io.TextIOWrapper):
    """A terminal; once it is closed, what is written goes nowhere."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self._leave()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._leave()

    def _leave(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        super().flush()


def outlive_terminal() -> None:
    """Let standard output and error go nowhere when they are a terminal and it is closed: that must not end a run."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            setattr(sys, name, _UntilHangup(stream.buffer, stream.encoding, stream.errors, line_buffering=True))


def _look(pid: int) -> tuple[str, str]:
    """(state, start) of a process; two empty texts where there is none."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            return fields[0], fields[19]
        except (OSError, IndexError):
            return "", ""
    told = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, start = told.stdout.strip().partition(" ")
    return state[:1], re.sub(r"\W", "", start)


@functools.cache
def _space() -> str:
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)

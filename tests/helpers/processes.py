"""Processes that tests start: which still run, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

_MARK = "DDPTRAIN_TESTED_BY"
_SERVERS = (b"multiprocessing.forkserver", b"multiprocessing.resource_tracker")


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], object], what: str | Callable[[], str], seconds: float = 120) -> None:
    """Look until the condition holds; after `seconds` the test fails and shows `what`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what() if callable(what) else what
        time.sleep(0.02)


def mark() -> None:
    """From here on, all processes below this one can be told from others, also when they have lost their parents."""
    os.environ[_MARK] = str(os.getpid())


def pids() -> set[int]:
    """All processes of this machine."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()} if Path("/proc").is_dir() else set()


def _ours(pid: int) -> bool:
    try:
        environ, command = (Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline"))
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return False
    server = parent == os.getpid() and any(name in command for name in _SERVERS)
    return f"{_MARK}={os.getpid()}".encode() in environ.split(b"\0") and not server and alive(pid)


def end_those_left(before: set[int], patience: float = 10.0) -> list[str]:
    """Kill the processes that were started since `before` and do not end by themselves; returns their command lines."""
    end = time.monotonic() + patience
    while left := [pid for pid in sorted(pids() - before) if _ours(pid)]:
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    lines = []
    for pid in left:
        with contextlib.suppress(OSError):
            lines.append(f"{pid}: " + Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            os.kill(pid, signal.SIGKILL)
    return lines

"""Who owns a run folder: what its lock says, and whether that process is still alive."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ddptrain.system.processes import Process

STALE_S = 60.0
"""An owner that cannot be seen is taken for dead after this long without a beat."""


@dataclass(frozen=True)
class Owner:
    """The content of a lock.

    Attributes:
        token: random; no two locks share it.
        process: the process that holds the lock; None where the file is unreadable.
        job: number of its Slurm job; empty without one.
        since: when the lock was taken, for people.
        stopping: the process was asked to stop and is saving.
    """

    token: str
    process: Process | None
    job: str = ""
    since: str = ""
    stopping: bool = False

    def __str__(self) -> str:
        job = f" (Slurm job {self.job})" if self.job else ""
        return f"{self.process}{job}" if self.process else "an unknown process"

    def dumps(self, stopping: bool = False) -> str:
        """The owner as the text of a lock."""
        return json.dumps(asdict(self) | {"stopping": stopping}) + "\n"


def read_owner(path: Path) -> Owner | None:
    """The owner named in a lock; None where there is no lock."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    try:
        values = json.loads(text)
        return Owner(**{**values, "process": Process(**values["process"])})
    except (ValueError, TypeError, KeyError):
        return Owner("", None)


def is_held(path: Path) -> bool:
    """Whether a process that is alive, as far as can be seen from here at one look, holds a lock."""
    owner = read_owner(path)
    if owner is None:
        return False
    alive = owner.process.alive() if owner.process else None
    return time.time() - modified(path) < STALE_S if alive is None else alive


class OwnerWatch:
    """Another process's lock, looked at again and again.

    Attributes:
        stale: the owner is dead, or has been silent for too long.
        alive: the owner was seen to be alive. Both are false while that is not known.
    """

    def __init__(self, path: Path, own: Path) -> None:
        """
        Args:
            path: the lock.
            own: a file of this process in the same folder, whose time is "now" for its file system.
        """
        self._path, self._own = path, own
        self._beat: float | None = None
        self._token = ""
        self.stale = self.alive = False

    def look(self) -> Owner | None:
        """The present owner; None where the lock was released. Updates `stale` and `alive`."""
        owner = read_owner(self._path)
        try:
            beat = modified(self._path)
        except FileNotFoundError:
            return None
        if owner is None:
            return None
        if owner.token != self._token or self._beat is None:
            self._token, self._beat, self._since, self.alive = owner.token, beat, time.monotonic(), False
        elif beat != self._beat:
            self._beat, self._since, self.alive = beat, time.monotonic(), True
        alive = owner.process.alive() if owner.process else None
        os.utime(self._own)
        silent = max(modified(self._own) - beat, time.monotonic() - self._since)
        self.stale = not alive if alive is not None else silent > STALE_S
        self.alive = self.alive or bool(alive)
        return owner


def modified(path: Path) -> float:
    """Time of a file's last change, in seconds, by the clock of its file system."""
    with open(path, "rb") as f:  # opening it makes NFS ask its server
        return os.fstat(f.fileno()).st_mtime

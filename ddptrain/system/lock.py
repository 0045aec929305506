"""One process at a time trains in a run folder. No torch here.

`lock.json` in the folder names its owner: machine, boot, process, start, Slurm job. It is created whole by a hard link, which
fails where there is one already, on NFS too (by an exclusive `open` where a file system has no links). The owner changes the
file's time every `BEAT_S` seconds. A lock is stale when its process is seen to be gone or, where that cannot be seen (another
machine, another boot, a container), when it was silent for `STALE_S`; only times of the folder's own file system are compared.
Who takes over a stale lock holds `.lock.taking` meanwhile, so that of several only one does.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from ddptrain.errors import RankFailed, UserError
from ddptrain.system import processes
from ddptrain.system.processes import Process

NAME = "lock.json"
BEAT_S = 10.0
STALE_S = 60.0
PATIENCE_S = 5.0
"""How long a start waits for an owner that may be about to end: its launcher was killed a moment ago."""
LONG_PATIENCE_S = 300.0
"""The same, for an owner that is stopping and saves, or that is the same Slurm job before it was queued again."""
_TAKING = ".lock.taking"


@dataclass(frozen=True)
class Owner:
    """What a lock says.

    Attributes:
        token: random; no two locks share it.
        process: who holds it; None where the file cannot be read.
        job: number of its Slurm job; empty without.
        since: when it was taken, for people.
        stopping: it was asked to stop and is saving.
    """

    token: str
    process: Process | None
    job: str = ""
    since: str = ""
    stopping: bool = False

    def __str__(self) -> str:
        job = f" (Slurm job {self.job})" if self.job else ""
        return f"{self.process}{job}" if self.process else "an unknown process"


class LockLost(RankFailed):
    """Somebody else trains in the run folder now: nothing of it may be touched any more."""


def has_run(folder: Path) -> bool:
    """Whether a folder holds anything but a lock, and the jobs that were submitted to make the run."""
    return folder.is_dir() and any(p.name not in (NAME, "jobs") and not p.name.startswith(".lock.") for p in folder.iterdir())


class RunLock:
    """Context manager around `acquire`; leaving it releases the lock, if it is held."""

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None],
        stop: Callable[[], int | None] = lambda: None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """
        Args:
            folder: the run's folder; made by `acquire`, removed again if nothing came into it.
            say: told who is waited for, and what was taken over.
            stop: number of the signal that asked this process to stop, None while none did. One ends the wait; those who wait
                for this process are told, so that they let it save.
        """
        self._folder, self._say, self._stop = folder, say, stop
        self._path = folder / NAME
        self._job, self._again = environ.get("SLURM_JOB_ID", ""), (environ.get("SLURM_RESTART_COUNT") or "0") != "0"
        self._me = Owner(secrets.token_hex(8), processes.this(), self._job, time.strftime("%Y-%m-%d %H:%M:%S"))
        self._new = folder / f".lock.{self._me.token}"
        self._made: list[Path] = []
        self._lost = ""
        self._end = threading.Event()
        self._beats: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock, after a bounded wait for an owner that lives.

        Raises:
            UserError: somebody else trains here, or the folder cannot be written; says what to do.
        """
        try:
            self._made = [p for p in (self._folder, *self._folder.parents) if not p.exists()]
            self._folder.mkdir(parents=True, exist_ok=True)
            self._new.write_text(_dump(self._me), encoding="utf-8")
            try:
                self._wait()
            finally:
                with suppress(OSError):
                    self._new.unlink()
        except OSError as e:
            raise UserError(f"{self._folder}: cannot be written ({e.strerror or e}); set output to another folder") from None
        self._beats = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._beats.start()

    def _wait(self) -> None:
        watched, began, told = _Watched(self._path, self._new), time.monotonic(), 0.0
        while not self._create():
            owner = watched.look()
            if owner is None:  # released a moment ago
                continue
            if watched.stale and self._take_over(owner):
                return
            if watched.stale:
                time.sleep(0.2)
                continue
            waited = time.monotonic() - began
            same = bool(self._job) and owner.job == self._job and self._again
            patience = LONG_PATIENCE_S if owner.stopping or same else PATIENCE_S
            if (number := self._stop()) is not None:
                raise SystemExit(128 + number)
            if waited > patience and watched.lives:
                raise UserError(self._refusal(owner))
            if not told or waited - told >= BEAT_S:
                told = waited or 1e-9
                until = f"up to {patience:.0f} s for its end" if watched.lives else f"up to {STALE_S:.0f} s for a sign of life"
                self._say(f"{self._folder}: {owner} trains here; waiting {until}")
            time.sleep(0.2)

    def _refusal(self, owner: Owner) -> str:
        since = f" since {owner.since}" if owner.since else ""
        stop = f"stop it (kill {owner.process.pid} on {owner.process.host})" if owner.process else "stop it"
        if owner.job:
            stop = f"stop it (scancel {owner.job})"
        return f"{self._folder}: {owner} trains here{since}; {stop} or wait for its end, or choose another name=…"

    def _create(self) -> bool:
        try:
            os.link(self._new, self._path)
        except FileExistsError:
            return False
        except OSError:
            return self._create_without_links()
        return True

    def _create_without_links(self) -> bool:
        try:
            with open(self._path, "x", encoding="utf-8") as f:
                f.write(_dump(self._me))
        except FileExistsError:
            return False
        return True

    def _take_over(self, stale: Owner) -> bool:
        """Put this process's lock in the place of a stale one; False where somebody else was first."""
        taking = self._folder / _TAKING
        try:
            taking.touch(exist_ok=False)
        except FileExistsError:
            with suppress(OSError):  # who held it may have died right then
                if _time(self._new) - _time(taking) > STALE_S:
                    taking.unlink()
            return False
        try:
            if (now := _read(self._path)) is None or now.token != stale.token:
                return False
            os.replace(self._new, self._path)
        finally:
            taking.unlink()
        seen = stale.process is not None and stale.process.alive() is False
        how = "has ended without releasing its lock (was it killed?)" if seen else f"was silent for {STALE_S:.0f} s or more"
        self._say(f"{self._folder}: {stale} {how}: this run takes the folder over")
        return True

    def _beat(self) -> None:
        told_stopping, last = False, time.monotonic()
        while not self._end.wait(1.0):
            if self._stop() is not None and not told_stopping:
                told_stopping = True
                with suppress(OSError):
                    if self._is_mine():
                        self._path.write_text(_dump(self._me, stopping=True), encoding="utf-8")
            if time.monotonic() - last < BEAT_S:
                continue
            last = time.monotonic()
            with suppress(OSError):
                if self._is_mine():
                    os.utime(self._path)

    def _is_mine(self) -> bool:
        """Whether the lock is still this process's; notes whose it is, if not. One that was deleted is made anew."""
        if self._lost:
            return False
        owner = _read(self._path)
        if owner is None and not self._create_without_links():
            owner = _read(self._path)
        if owner is not None and owner.process is not None and owner.token != self._me.token:
            self._lost = str(owner)
        return not self._lost

    @property
    def lost(self) -> bool:
        """Whether somebody else was seen to have taken the lock."""
        return bool(self._lost)

    def check(self, look: bool = False) -> None:
        """Go on only while the folder is this process's.

        Args:
            look: read the lock now (before a save); otherwise what the last beat saw stands, which costs nothing.

        Raises:
            LockLost: somebody else has taken it.
        """
        if look and self._beats is not None:
            with suppress(OSError):  # a folder that cannot be reached is nobody else's
                self._is_mine()
        if self._lost:
            raise LockLost(
                f"{self._folder}: {self._lost} has taken this run over, since this process gave no sign of life for "
                f"{STALE_S:.0f} s; it ends here and saves nothing more"
            )

    def release(self) -> None:
        """Give the lock back, if it is held; at every kind of end."""
        if self._beats is not None:
            self._end.set()
            self._beats = None
            with suppress(OSError):
                owner = _read(self._path)
                if owner is not None and owner.token == self._me.token:
                    self._path.unlink()
        with suppress(OSError):  # not empty
            for folder in self._made:
                folder.rmdir()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


class _Watched:
    """A lock of somebody else, looked at again and again."""

    def __init__(self, path: Path, own: Path) -> None:
        """Args: own: a file of this process in the same folder, whose time is "now" for its file system."""
        self._path, self._own = path, own
        self._beat: float | None = None
        self._token = ""
        self.stale = self.lives = False

    def look(self) -> Owner | None:
        """Who holds it now; sets `stale` and `lives` (both false while it is not known)."""
        owner = _read(self._path)
        try:
            beat = _time(self._path)
        except FileNotFoundError:
            return None
        if owner is None:
            return None
        if owner.token != self._token or self._beat is None:
            self._token, self._beat, self._since, self.lives = owner.token, beat, time.monotonic(), False
        elif beat != self._beat:
            self._beat, self._since, self.lives = beat, time.monotonic(), True
        alive = owner.process.alive() if owner.process else None
        os.utime(self._own)
        silent = max(_time(self._own) - beat, time.monotonic() - self._since)
        self.stale = not alive if alive is not None else silent > STALE_S
        self.lives = self.lives or bool(alive)
        return owner


def _time(path: Path) -> float:
    with open(path, "rb") as f:  # opening it makes NFS ask its server
        return os.fstat(f.fileno()).st_mtime


def _dump(owner: Owner, stopping: bool = False) -> str:
    return json.dumps(asdict(owner) | {"stopping": stopping}) + "\n"


def _read(path: Path) -> Owner | None:
    """What a lock says; None where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    try:
        told = json.loads(text)
        return Owner(**{**told, "process": Process(**told["process"])})
    except (ValueError, TypeError, KeyError):
        return Owner("", None)

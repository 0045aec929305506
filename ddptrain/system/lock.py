"""One process at a time trains in a run folder.

`lock.json` in the folder names its owner: machine, boot, process, start, Slurm job. It is created whole by a hard link, which
fails where the file exists, on NFS too (by an exclusive `open` where a file system has no links). The owner touches the file
every `BEAT_S` seconds. A lock is stale when its process is seen to be dead or, where that cannot be seen (another machine,
another boot, a container), when it has been silent for `STALE_S`; only times of the folder's own file system are compared. A
process that takes over a stale lock holds `.lock.taking` meanwhile, so that of several processes only one does.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ddptrain.errors import RankFailed, UserError
from ddptrain.system import processes
from ddptrain.system.owner import STALE_S, Owner, OwnerWatch, modified, read_owner

NAME = "lock.json"
BEAT_S = 10.0
PATIENCE_S = 5.0
"""How long a start waits for an owner that may be about to end since its launcher was killed a moment ago."""
LONG_PATIENCE_S = 300.0
"""The same for an owner that is saving before it stops, or that is the same Slurm job before it was queued again."""
_TAKING = ".lock.taking"


class LockLost(RankFailed):
    """Another process trains in the run folder now: nothing in it may be touched any more."""


def has_run(folder: Path) -> bool:
    """Whether a folder holds more than a lock and the jobs that were submitted for the run."""
    return folder.is_dir() and any(p.name not in (NAME, "jobs") and not p.name.startswith(".lock.") for p in folder.iterdir())


class RunLock:
    """Context manager around `acquire`; leaving it releases the lock if it is held."""

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None],
        stop: Callable[[], int | None] = lambda: None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """
        Args:
            folder: the run's folder; made by `acquire`, removed again if it stays empty.
            say: takes a line about an owner that is waited for or was replaced.
            stop: number of the signal that asked this process to stop, None while none did. A signal ends the wait; the lock
                then says that this process is saving, so that others wait longer.
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
        """Take the lock, after a bounded wait for an owner that is alive.

        Raises:
            UserError: another process trains here, or the folder cannot be written; says what to do.
        """
        try:
            self._made = [p for p in (self._folder, *self._folder.parents) if not p.exists()]
            self._folder.mkdir(parents=True, exist_ok=True)
            self._new.write_text(self._me.dumps(), encoding="utf-8")
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
        watch, began, reported = OwnerWatch(self._path, self._new), time.monotonic(), 0.0
        while not self._create():
            owner = watch.look()
            if owner is None:  # released a moment ago
                continue
            if watch.stale and self._take_over(owner):
                return
            if watch.stale:
                time.sleep(0.2)
                continue
            waited = time.monotonic() - began
            same = bool(self._job) and owner.job == self._job and self._again
            patience = LONG_PATIENCE_S if owner.stopping or same else PATIENCE_S
            if (number := self._stop()) is not None:
                raise SystemExit(128 + number)
            if waited > patience and watch.alive:
                raise UserError(self._refusal(owner))
            if not reported or waited - reported >= BEAT_S:
                reported = waited or 1e-9
                until = f"up to {patience:.0f} s for it to end" if watch.alive else f"up to {STALE_S:.0f} s for a heartbeat"
                self._say(f"{self._folder}: {owner} is training here; waiting {until}")
            time.sleep(0.2)

    def _refusal(self, owner: Owner) -> str:
        since = f" since {owner.since}" if owner.since else ""
        stop = f"stop it (kill {owner.process.pid} on {owner.process.host})" if owner.process else "stop it"
        if owner.job:
            stop = f"stop it (scancel {owner.job})"
        return f"{self._folder}: {owner} is training here{since}; {stop}, wait for it to end, or choose another name=…"

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
                f.write(self._me.dumps())
        except FileExistsError:
            return False
        return True

    def _take_over(self, stale: Owner) -> bool:
        """Replace a stale lock by this process's; False where another process was first."""
        taking = self._folder / _TAKING
        try:
            taking.touch(exist_ok=False)
        except FileExistsError:
            with suppress(OSError):  # its owner may have died right then
                if modified(self._new) - modified(taking) > STALE_S:
                    taking.unlink()
            return False
        try:
            if (now := read_owner(self._path)) is None or now.token != stale.token:
                return False
            os.replace(self._new, self._path)
        finally:
            taking.unlink()
        dead = stale.process is not None and stale.process.alive() is False
        how = "ended without releasing its lock (was it killed?)" if dead else f"was silent for at least {STALE_S:.0f} s"
        self._say(f"{self._folder}: {stale} {how}: this run takes over the folder")
        return True

    def _beat(self) -> None:
        stopping, last = False, time.monotonic()
        while not self._end.wait(1.0):
            if self._stop() is not None and not stopping:
                stopping = True
                with suppress(OSError):
                    if self._is_mine():
                        self._path.write_text(self._me.dumps(stopping=True), encoding="utf-8")
            if time.monotonic() - last < BEAT_S:
                continue
            last = time.monotonic()
            with suppress(OSError):
                if self._is_mine():
                    os.utime(self._path)

    def _is_mine(self) -> bool:
        """Whether this process still holds the lock; records the new owner otherwise. A deleted lock is created again."""
        if self._lost:
            return False
        owner = read_owner(self._path)
        if owner is None and not self._create_without_links():
            owner = read_owner(self._path)
        if owner is not None and owner.process is not None and owner.token != self._me.token:
            self._lost = str(owner)
        return not self._lost

    @property
    def lost(self) -> bool:
        """Whether another process was seen to hold the lock."""
        return bool(self._lost)

    def check(self, look: bool = False) -> None:
        """Go on only while this process holds the lock.

        Args:
            look: read the lock now (before a save); otherwise the result of the last beat counts, which costs nothing.

        Raises:
            LockLost: another process has taken it.
        """
        if look and self._beats is not None:
            with suppress(OSError):  # a folder that cannot be reached was not taken over
                self._is_mine()
        if self._lost:
            raise LockLost(
                f"{self._folder}: {self._lost} has taken over this run, since this process was unresponsive for "
                f"{STALE_S:.0f} s; it exits now and saves nothing more"
            )

    def release(self) -> None:
        """Release the lock if it is held, however the run ended."""
        if self._beats is not None:
            self._end.set()
            # a beat that is on its way would take the missing file for a deleted one, and create it again
            self._beats.join()
            self._beats = None
            with suppress(OSError):
                owner = read_owner(self._path)
                if owner is not None and owner.token == self._me.token:
                    self._path.unlink()
        with suppress(OSError):  # not empty
            for folder in self._made:
                folder.rmdir()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

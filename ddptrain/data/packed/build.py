"""Making the files of plans: by one process of a machine, while the others wait; and finding those that are there.

```
<cache>/pixels/lock                    held (flock) by the process that packs
              /<name>.<key>.pixels     on disk: a packed file, written aside and renamed
              /<name>.<key>.memory     in memory: where the process that holds it has it
```

A file in memory has no name in any folder: it is gone with the last process that maps it, however that ends. Where a file
system knows no locks, each process packs its own and the last one's stays. Files on disk that no run has opened for `KEEP_DAYS`
are removed when another one is made; the whole folder may be deleted whenever no run starts.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

from ddptrain.data.images.read import BadImage
from ddptrain.data.packed.file import Packed, body_start, head_of, read_stamps, size_of_file
from ddptrain.data.packed.plan import Plan
from ddptrain.data.tables.base import I64
from ddptrain.errors import UserError
from ddptrain.system import temporary
from ddptrain.system.files import sync_folder, write_text
from ddptrain.system.limits import available_cores, available_memory
from ddptrain.system.printable import counted

Where = Literal["disk", "ram"]
KEEP_DAYS = 30
SPARE = 10
"""One part in this many of the free space, or memory, is left free."""
SETTLE_S = 2.0
"""A file that was changed less than this ago might change again within the same tick of its file system's clock."""
_CHUNK = 256
_SAY_S = 10.0


@dataclass(frozen=True)
class Talk:
    """How packing reports, and how it is stopped.

    Attributes:
        tell: takes a line about what is packed.
        waits: takes a line about another process that packs.
        stop: number of the signal that asked this process to stop, None while none did.
    """

    tell: Callable[[str], None]
    waits: Callable[[str], None]
    stop: Callable[[], int | None] = lambda: None

    def check(self) -> None:
        """End this process if it was asked to stop."""
        if (number := self.stop()) is not None:
            raise SystemExit(128 + number)


def provide(plans: Mapping[str, Plan], where: Where, folder: Path, talk: Talk) -> dict[str, Packed]:
    """The files of plans, by their names; those that are not there, or not of the files as they are now, are made.

    Args:
        folder: of the package's caches.

    Raises:
        UserError: there is no room for them, or they cannot be written; before any is made.
    """
    place = folder / "pixels"
    if where == "ram" and not hasattr(os, "memfd_create"):
        raise UserError("data.cache=ram needs Linux; set data.cache=disk")
    try:
        place.mkdir(parents=True, exist_ok=True)
        found = {name: _find(name, plan, where, place) for name, plan in plans.items()}
        if not all(found.values()):
            with _lock(place / "lock", talk):
                found = {name: _find(name, plan, where, place, talk.tell) for name, plan in plans.items()}
                missing = [name for name, packed in found.items() if packed is None]
                _refuse_too_large({name: plans[name] for name in missing}, where, place)
                for name in missing:
                    found[name] = _build(name, plans[name], where, place, talk)
    except OSError as e:
        raise UserError(
            f"data.cache: {e.filename or place}: {e.strerror or e}; set DDPTRAIN_CACHE to another folder, or data.cache=none"
        ) from None
    return {name: packed for name, packed in found.items() if packed is not None}


def _target(name: str, plan: Plan, where: Where, place: Path) -> Path:
    return place / f"{name}.{plan.key[:16]}.{'pixels' if where == 'disk' else 'memory'}"


def _find(name: str, plan: Plan, where: Where, place: Path, tell: Callable[[str], None] | None = None) -> Packed | None:
    """A file that is there and of the dataset's files as they are now.

    Args:
        tell: is told why one is not taken, which is then removed.
    """
    target = _target(name, plan, where, place)
    try:
        path = str(target) if where == "disk" else target.read_text(encoding="utf-8")
        file = os.open(path, os.O_RDONLY)
    except (OSError, ValueError):  # there is none, or the process that held it is gone
        return None
    try:
        then, now = read_stamps(file, plan), plan.stamps()
        if then is not None and (then[:, :-1] == now[:, :-1]).all():
            if where == "disk":
                with suppress(OSError):
                    os.utime(path)
            return Packed(path, plan, then)
    finally:
        os.close(file)
    if tell is not None:
        if then is None:
            tell(f"{target} is damaged; packing the dataset again")
        else:
            changed = int((then[:, :-1] != now[:, :-1]).any(1).sum())
            tell(f"{name}: {changed} of {counted(len(plan), 'file')} changed since they were packed; packing the dataset again")
        target.unlink(missing_ok=True)
    return None


@contextmanager
def _lock(path: Path, talk: Talk) -> Iterator[None]:
    """Held by one process at a time, and let go of by the system when that ends."""
    with open(path, "ab") as file:
        began, said = time.monotonic(), 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                talk.check()
                if time.monotonic() - began > said:
                    talk.waits(f"waiting for another process that packs images ({path} is locked)")
                    said = 2 * said + _SAY_S
                time.sleep(0.1)
                continue
            except OSError:  # no locks on this file system
                pass
            break
        yield


def _refuse_too_large(plans: Mapping[str, Plan], where: Where, place: Path) -> None:
    need = sum(size_of_file(plan) for plan in plans.values())
    free = shutil.disk_usage(place).free if where == "disk" else available_memory()
    if need > free - free // SPARE:
        room = f"{place} has {_gb(free)} free" if where == "disk" else f"this machine has {_gb(free)} of memory left"
        other = "set DDPTRAIN_CACHE to a larger disk" if where == "disk" else "set data.cache=disk"
        largest = max(plans, key=lambda name: size_of_file(plans[name]))
        raise UserError(
            f"data.cache={where} needs {_gb(need)} (most of it for {largest}), and {room}, of which a tenth stays free; "
            f"{other}, or data.cache=none"
        )


def _build(name: str, plan: Plan, where: Where, place: Path, talk: Talk) -> Packed:
    stamps = _settled(plan)
    files = counted(int(plan.used.sum()), "file")
    target = _target(name, plan, where, place)
    talk.tell(f"{name}: packing {files} into {_gb(size_of_file(plan))} ({target if where == 'disk' else 'memory'})")
    began = time.monotonic()
    if where == "ram":
        held = os.memfd_create("ddptrain-pixels")
        try:
            _fill(held, name, plan, stamps, talk)
            path = f"/proc/{os.getpid()}/fd/{held}"
            packed = Packed(path, plan, stamps)
            write_text(target, path)
        except BaseException:
            os.close(held)
            raise
        weakref.finalize(packed, os.close, held)
    else:
        with temporary.folder("pixels", place) as aside:
            with open(aside / "pixels", "wb", buffering=0) as file:
                _fill(file.fileno(), name, plan, stamps, talk)
                os.fsync(file.fileno())
            os.replace(aside / "pixels", target)
        sync_folder(place)
        _remove_unused(place)
        packed = Packed(str(target), plan, stamps)
    bad = int(plan.used.sum() - stamps[:, -1].sum())
    left = f", without {counted(bad, 'file')} that cannot be read" if bad else ""
    talk.tell(f"{name}: packed in {time.monotonic() - began:.1f} s{left}")
    return packed


def _settled(plan: Plan) -> I64:
    """The stamps of files of which none was changed a moment ago."""
    stamps = plan.stamps()
    age = time.time() - stamps[:, 1:3].max(initial=0) / 1e9
    if 0 <= age < SETTLE_S:
        time.sleep(SETTLE_S - age)
        return plan.stamps()
    return stamps


def _fill(file: int, name: str, plan: Plan, stamps: I64, talk: Talk) -> None:
    """Write a whole file; the last column of the stamps tells afterwards which arrays are in it."""
    _reserve(file, size_of_file(plan))
    cv2.setNumThreads(0)  # its own threads would wait for those here, and not survive the fork of loader processes
    start, used = body_start(len(plan)), plan.used.nonzero()[0].tolist()

    def pack(i: int) -> None:
        try:
            array = plan.read(i)
        except BadImage:  # whoever wants it reads the file, and meets the same fault
            return
        _write(file, array.tobytes(), start + int(plan.ends[i]))
        stamps[i, -1] = 1

    began = said = time.monotonic()
    with ThreadPoolExecutor(available_cores()) as pool:
        for first in range(0, len(used), _CHUNK):
            for _ in pool.map(pack, used[first : first + _CHUNK]):
                pass
            talk.check()
            now = time.monotonic()
            if now - said > _SAY_S:
                said, done = now, (first + _CHUNK) / len(used)
                talk.tell(f"{name}: {done:.0%} packed, about {(now - began) * (1 / done - 1):.0f} s left")
    _write(file, head_of(plan, stamps), 0)


def _reserve(file: int, size: int) -> None:
    """A full disk is found out now, and not when a part of the work is done."""
    os.ftruncate(file, size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as e:
            if e.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not every file system can
                raise


def _write(file: int, data: bytes, place: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, place)
        rest, place = rest[written:], place + written


def _remove_unused(place: Path) -> None:
    limit = time.time() - KEEP_DAYS * 86400
    for old in place.glob("*.pixels"):
        with suppress(OSError):
            if old.stat().st_mtime < limit:
                old.unlink()


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"

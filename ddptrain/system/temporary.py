"""Temporary folders that name their owner, so that the next start removes what a killed process left behind.

ddptrain-<kind>.<machine, boot and pid namespace, hashed>.<pid>.<its start>.<random>
"""

from __future__ import annotations

import atexit
import hashlib
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ddptrain.system import processes

KEEP_S = 7 * 86400.0
"""A folder of another machine or boot is removed after this long without a change."""
_SOCKET_FOLDER = 85
"""Longest name, in characters: the path of a socket in it may have 107."""
_NAME = re.compile(r"\.?ddptrain-[a-z]+\.(?P<space>[0-9a-f]{8})\.(?P<pid>\d+)\.(?P<start>\w*)\.[\w-]+")


def make(kind: str, parent: Path | None = None) -> Path:
    """A new folder, which its owner removes; sweeps `parent` first.

    Args:
        kind: what it is for, in lower case.
        parent: where it is made; None for the system's folder of temporary files. Elsewhere its name is hidden.
    """
    where = Path(tempfile.gettempdir()) if parent is None else parent
    sweep(where)
    me = processes.this()
    prefix = f"{'' if parent is None else '.'}ddptrain-{kind}.{_space(me)}.{me.pid}.{me.start}."
    return Path(tempfile.mkdtemp(prefix=prefix, dir=where))


@contextmanager
def folder(kind: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder of `make` that is removed at the end."""
    made = make(kind, parent)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def for_children() -> None:
    """Let processes started through multiprocessing put their sockets in a folder that names this one as their owner."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    if "tempdir" not in config:
        made = make("loader")
        if len(str(made)) > _SOCKET_FOLDER:
            made.rmdir()
            return
        config["tempdir"] = str(made)
        atexit.register(shutil.rmtree, made, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove what dead processes of this user left in a folder, and nothing else."""
    mine = _space(processes.this())
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if (name := _NAME.fullmatch(entry.name)) is None:
                continue
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if name["space"] == mine:
                    dead = not processes.is_alive(int(name["pid"]), name["start"])
                else:
                    dead = time.time() - status.st_mtime > KEEP_S
                if dead and status.st_uid == os.geteuid():
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        os.unlink(entry.path)


def _space(process: processes.Process) -> str:
    return hashlib.blake2b(f"{process.host} {process.space}".encode(), digest_size=4).hexdigest()

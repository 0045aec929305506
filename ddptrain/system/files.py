"""Files that are never seen half-written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, so that a rename in it outlives a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` by `text` (UTF-8), see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data` in one move: a reader on any machine sees the old content or the new one, whole,
    whichever processes write at the same time.

    Raises:
        OSError: the file could not be written; the old one stays as it was.
    """
    with replacing(path) as file:
        file.write(data)


def append_bytes(path: Path, data: bytes) -> None:
    """Add `data` to the end of a file, which is made if need be.

    Raises:
        OSError: it could not be written; what was written of it, on a disk that is full now, is taken back.
    """
    with path.open("ab", buffering=0) as file:
        size, done = file.tell(), 0
        try:
            while done < len(data):
                done += file.write(data[done:])
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that takes the place of `path` at the end of the block, see `write_bytes`; not after an exception.

    Raises:
        OSError: the file could not be written, by its name; the old one stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException as e:
        with suppress(OSError):  # the folder itself may be gone
            temporary.unlink()
        if isinstance(e, OSError) and e.filename in (None, str(temporary)):  # a full disk has no name
            e.filename, e.filename2 = str(path), None
        raise
    sync_folder(path.parent)

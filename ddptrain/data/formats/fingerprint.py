"""What the files of a dataset look like from outside: a hash that changes with every one of them."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def fingerprint(root: Path, outside: Iterable[str] = ()) -> tuple[str, float]:
    """Hash of path, size and times of every file below `root` and right in the folders `outside` (and of the names of folders
    there), and the newest of the times in seconds. Links are followed."""
    digest = hashlib.blake2b(digest_size=16)
    newest = 0
    with ThreadPoolExecutor(16) as pool:  # on network storage the time goes into waiting
        for base, files, lines in _folders(root, outside):
            chunks = [files[i : i + 1000] for i in range(0, len(files), 1000)]
            for part, time_ns in pool.map(_describe, chunks):
                lines += part
                newest = max(newest, time_ns)
            lines.sort()
            digest.update("\n".join([base, *lines, ""]).encode("utf-8", "surrogateescape"))
    return digest.hexdigest(), newest / 1e9


def _describe(files: list[os.DirEntry[str]]) -> tuple[list[str], int]:
    """Name, size and times of some files, and the newest of their times in nanoseconds."""
    lines, newest = [], 0
    for entry in files:
        try:
            status = entry.stat()
        except OSError:  # a dangling link
            lines.append(entry.name)
            continue
        newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
        lines.append(f"{entry.name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}")
    return lines, newest


def _folders(root: Path, outside: Iterable[str]) -> Iterator[tuple[str, list[os.DirEntry[str]], list[str]]]:
    """(folder, entries of its files, names of folders in it that are not walked) of the root and all below it, then of those
    outside. Each real folder once, so that links in a circle end."""
    waiting, seen = [str(root)], set()
    alone = list(outside)
    while waiting or alone:
        deep = bool(waiting)
        folder = waiting.pop() if deep else alone.pop()
        real = os.path.realpath(folder)
        if real in seen or not os.path.isdir(real):
            continue
        seen.add(real)
        with os.scandir(folder) as entries:
            listed = list(entries)
        files = [e for e in listed if not e.is_dir()]
        if deep:
            waiting += sorted((e.path for e in listed if e.is_dir()), reverse=True)
        yield folder, files, [] if deep else [os.path.join(e.name, "") for e in listed if e.is_dir()]


def outside_of(folders: Iterable[str], root: Path) -> list[str]:
    """Those of the folders that do not lie below the root, where a change would not be noticed otherwise."""
    top = os.path.join(os.path.abspath(root), "")
    return sorted(f for f in folders if not os.path.join(os.path.abspath(f), "").startswith(top))

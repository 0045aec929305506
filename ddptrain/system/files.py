"""Files that are never seen half-written. No torch here: the launcher uses it too."""

from __future__ import annotations

import os
import re
import resource
from contextlib import suppress
from pathlib import Path

MOST_FILES = 1 << 20
ENOUGH_FILES = 1024
"""Open files that a run with loader processes never needs more of."""


def open_file_limit() -> int:
    """How many files this process may have open at once; raised to the most that the system grants it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS grants less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft


def few_files() -> str:
    """What a process with too low a limit is told."""
    return f"only {open_file_limit()} files may be open at once; raise the limit (ulimit -n {ENOUGH_FILES})"


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, so that a rename in it outlives a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_text(path: Path, text: str) -> None:
    """Put `text` (UTF-8) in the place of `path` in one move: a reader sees the old text or the new one, whole.

    Raises:
        OSError: it could not be written; the old file stands as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the folder may be what is gone
            temporary.unlink()
        raise
    sync_folder(path.parent)


_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def guarded(cell: str) -> str:
    """A text for a cell of a CSV file. What a spreadsheet would run as a formula gets a `'` in front."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """The text that `guarded` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell

"""How many files this process may have open at once, and how many cores it has."""

from __future__ import annotations

import os
import resource
from contextlib import suppress

MOST_FILES = 1 << 20
ENOUGH_FILES = 1024
"""A run with loader processes never needs more open files than this."""


def open_file_limit() -> int:
    """How many files this process may have open at once, after raising the limit as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < target:
        with suppress(OSError, ValueError):  # macOS grants less than it claims
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft


def available_cores() -> int:
    """The cores that this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def few_files() -> str:
    """The message for a process whose limit is too low."""
    return f"only {open_file_limit()} files may be open at once; raise the limit (ulimit -n {ENOUGH_FILES})"

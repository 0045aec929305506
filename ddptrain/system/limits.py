"""How many files this process may have open at once, which cores it has, and how much memory is left."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

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


def bf16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether the cores multiply in bfloat16 (AVX512_BF16 or AMX_BF16 of x86, BF16 of ARM); None where nothing tells."""
    try:
        fields = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        flags = next((flags.split() for key, _, flags in fields if key.strip() in ("flags", "Features")), None)
    except OSError:
        return None
    return None if flags is None else not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def available_memory() -> int:
    """Bytes of memory that can still be taken: of the machine, and of the control group of this process, such as a container or
    a Slurm job with a limit; 0 where the system does not tell."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        left = int(fields["MemAvailable"].split()[0]) * 1024
        groups = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except (OSError, KeyError, ValueError):
        return 0
    for controllers, path in groups:
        if not controllers:  # version 2
            left = min(left, _left_in(Path("/sys/fs/cgroup"), path, "memory.max", "memory.current", "inactive_file"))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            left = min(left, _left_in(Path("/sys/fs/cgroup/memory"), path, *names))
    return left


def _left_in(top: Path, path: str, limit: str, used: str, reclaimable: str) -> int:
    """Bytes that a control group, and those that it is in, may still take; what only caches files makes room."""
    left = sys.maxsize
    group = top / path.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(top):
            break
        with suppress(OSError, ValueError, KeyError):  # no limit ("max"), or not visible from inside a container
            most, now = (int((folder / name).read_text()) for name in (limit, used))
            cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left = min(left, most - now + int(cached[reclaimable]))
    return max(left, 0)


def few_files() -> str:
    """The message for a process whose limit is too low."""
    return f"only {open_file_limit()} files may be open at once; raise the limit (ulimit -n {ENOUGH_FILES})"

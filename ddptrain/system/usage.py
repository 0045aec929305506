"""How busy this machine is, and how much memory this process has, as Linux says; elsewhere nothing is known."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


class CpuUsage:
    """The share of this machine's cores that work."""

    def __init__(self) -> None:
        self._before = _ticks()

    def read(self) -> float | None:
        """Since the last call, 0..1; None where it is not known."""
        before, self._before = self._before, _ticks()
        if before is None or self._before is None:
            return None
        busy, whole = (b - a for a, b in zip(before, self._before))
        return busy / whole if whole > 0 else None


def _ticks() -> tuple[int, int] | None:
    """All cores' time so far that they worked, and in all."""
    with suppress(OSError, ValueError, IndexError):
        numbers = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(numbers) - numbers[3] - numbers[4], sum(numbers)
    return None


def memory_gb() -> float | None:
    """Memory of this process alone, in GB (2^30 bytes); None where it is not known."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30
    return None

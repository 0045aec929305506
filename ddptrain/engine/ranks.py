"""What the ranks have to say about themselves at a logging interval, and what rank 0 makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch

from ddptrain.reporting.timing import Reading
from ddptrain.system.usage import CpuUsage, memory_gb


class RankUsage:
    """Of this rank, between two calls of `read`."""

    def __init__(self, device: torch.device, ranks: int) -> None:
        self._device, self._ranks = device, ranks
        self._cpu = CpuUsage()
        self._waited = 0.0

    def read(self, reading: Reading, waited: float) -> dict[str, float]:
        """Numbers to be sent to rank 0; what is not known is left out.

        Args:
            reading: of the interval.
            waited: seconds so far that the rank has waited for others.
        """
        own = max(reading.seconds - (waited - self._waited), 1e-9)
        self._waited = waited
        samples = reading.images_per_second * reading.seconds / self._ranks
        out = {"images_per_second": samples / own, "data_wait": reading.data_wait}
        found = {"cpu_utilisation": self._cpu.read(), "memory_gb": memory_gb()}
        if self._device.type == "cuda":
            out["gpu_memory_gb"] = torch.cuda.max_memory_reserved(self._device) / 2**30
            # of the package nvidia-ml-py, which not everybody has
            with suppress(ImportError, RuntimeError):
                found["gpu_utilisation"] = torch.cuda.utilization(self._device) / 100
        return out | {name: value for name, value in found.items() if value is not None}


def of_all(ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Numbers by tag from those of each rank: of the slowest, of the one with the most memory, of the least busy GPU."""
    slowest = min(range(len(ranks)), key=lambda r: ranks[r]["images_per_second"])
    out = {
        "time/slowest_rank": float(slowest),
        "time/slowest_rank_images_per_second": ranks[slowest]["images_per_second"],
        "time/largest_data_wait": max(r["data_wait"] for r in ranks),
    }
    for name, choose in (("memory_gb", max), ("gpu_memory_gb", max), ("cpu_utilisation", max), ("gpu_utilisation", min)):
        known = [r[name] for r in ranks if name in r]
        if known:
            out[f"system/{name}"] = choose(known)
    return out

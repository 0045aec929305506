"""DistributedWeightedSampler against torch's DistributedSampler and WeightedRandomSampler.

    python benchmarks/sampler.py [--sizes 1000000 100000000] [--repeats 3]

Every measurement is a process of its own, so that the peak of memory is its own; the contestants take turns and the
median of the repeats is printed. Times are CPU seconds of one thread, so that a busy machine distorts them little.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

RATE_OVER = 1_000_000  # indices


def peak_mb() -> float:
    """Peak memory of this process so far, in MB."""
    kilobyte = 1024 if sys.platform != "darwin" else 1  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e6


def contestants(n: int, weights: Any = None) -> dict[str, Callable[[], Iterator[int]]]:
    """What is measured, by name: each makes a sampler over n samples and an iterator of it.

    Args:
        weights: float64 `[n]`, for those that weigh samples.
    """
    from torch.utils.data import DistributedSampler, WeightedRandomSampler

    from ddptrain.data import DistributedWeightedSampler

    sizes = [n - n // 10 - n // 100, n // 10, n // 100]

    class Samples:
        def __len__(self) -> int:
            return n

    def far_away() -> Iterator[int]:
        sampler = DistributedWeightedSampler(sizes, [3, 2, 1], num_replicas=8, rank=0)
        sampler.position = 10**12
        return iter(sampler)

    return {
        "torch DistributedSampler": lambda: iter(DistributedSampler(Samples(), num_replicas=1, rank=0)),
        "torch WeightedRandomSampler": lambda: iter(WeightedRandomSampler(weights, n)),
        "ddptrain, one dataset": lambda: iter(DistributedWeightedSampler([n])),
        "ddptrain, shares 3:2:1": lambda: iter(DistributedWeightedSampler(sizes, [3, 2, 1])),
        "ddptrain, shares, position 10**12": far_away,
        "ddptrain, sample weights": lambda: iter(DistributedWeightedSampler([n], sample_weights=weights)),
    }


def measure(name: str, n: int) -> dict[str, float | str]:
    """CPU seconds to the first index, MB of memory for it, indices per second after it."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    weigh = name in ("torch WeightedRandomSampler", "ddptrain, sample weights")
    make = contestants(n, np.tile(np.arange(1.0, 8.0), n // 7 + 1)[:n] if weigh else None)[name]
    before = peak_mb()
    start = time.process_time()
    try:
        iterator = make()
        next(iterator)
    except RuntimeError as e:
        return {"refused": str(e).splitlines()[0]}
    first = time.process_time() - start
    memory = peak_mb() - before
    start = time.process_time()
    count = sum(1 for _ in islice(iterator, RATE_OVER))
    return {"first_s": first, "memory_mb": memory, "rate": count / (time.process_time() - start)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**6, 10**8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SIZE"), help="measure one and print it as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]))))
        return
    print(f"{'samples':>11}  {'sampler':34} {'first index':>12} {'memory':>10} {'indices/s':>10}")
    for n in args.sizes:
        results: dict[str, list[dict]] = {name: [] for name in contestants(1000)}
        for _ in range(args.repeats):
            for name, rows in results.items():
                command = [sys.executable, __file__, "--one", name, str(n)]
                rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        for name, rows in results.items():
            if "refused" in rows[0]:
                print(f"{n:11,}  {name:34} refused: {rows[0]['refused']}")
                continue
            first, memory, rate = (statistics.median(r[k] for r in rows) for k in ("first_s", "memory_mb", "rate"))
            print(f"{n:11,}  {name:34} {1e3 * first:9.1f} ms {memory:7.1f} MB {rate / 1e6:7.2f} M")


if __name__ == "__main__":
    main()

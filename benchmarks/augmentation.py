"""CPU milliseconds that each augmentation adds to a training sample.

    python benchmarks/augmentation.py configs/bench/bccd.yaml [key=value …] [--samples 40] [--rounds 5]

Rows are those of `ddptrain augment --grid`. They take turns; a number is the median over the rounds of the CPU time of a block
of samples in this process, on one thread, and the difference to samples without augmentation. Images are taken from memory
(`data.cache`), so that decoding does not drown the rest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from ddptrain.commands.augment import changed, rows_of
from ddptrain.config import load_config
from ddptrain.data.augment.partners import Partners
from ddptrain.data.packed.build import Talk
from ddptrain.structures import SampleKey
from ddptrain.system.memory import keep_memory
from ddptrain.tasks.build import build_task
from ddptrain.tasks.pixels import cache_pixels


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--samples", type=int, default=40, help="samples in a block")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each row")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    keep_memory()
    task = build_task(load_config(args.config, args.overrides))
    cache_pixels(task, "ram", Talk(lambda line: None, lambda line: None))
    samples: Any = task.train
    augment = task.config.data.augment
    rows = {"none": changed(augment, {}), **rows_of(augment)}
    partners = Partners(task.sampler.keys, task.sampler.mixture.samples_per_epoch, float("inf"))
    made = {}
    for name, section in rows.items():
        made[name] = replace(samples, augment=section, partners=partners)
        made[name].use(samples._packed)
    taken: dict[str, list[float]] = {name: [] for name in rows}
    at = 0
    for number in range(args.rounds + 1):
        keys = [
            SampleKey(p, *map(int, place)) for p, place in enumerate(zip(*task.sampler.keys(at + np.arange(args.samples))), at)
        ]
        at += args.samples
        for name, own in made.items():
            start = time.process_time()
            for key in keys:
                own[key]
            if number:  # the first round fills caches
                taken[name].append(1e3 * (time.process_time() - start) / args.samples)
    plain = statistics.median(taken["none"])
    print(f"{'':<24}{'ms a sample':>12}{'added':>8}")
    for name, times in taken.items():
        print(f"{name:<24}{statistics.median(times):>12.2f}{statistics.median(times) - plain:>8.2f}")


if __name__ == "__main__":
    main()

"""Processor time of a training sample from packed pixels (`data.cache`), beside the same sample from its file.

    python benchmarks/pixel_cache.py [--root ../shared/data/auair_subset] [--format auair] [--samples 60]

The ways take turns, so that a busy machine slows all of them; medians over blocks of samples. Images that were decoded a moment
ago are not kept here (`RECENT_BYTES`), since among the few of the benchmark they would come again more often than in a large
dataset. Also the size of the file, and the time that packing takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ddptrain.config.detection import DetectionAugment, DetectionDataset
from ddptrain.data.augment.partners import Partners
from ddptrain.data.formats.build import read
from ddptrain.data.packed.build import Talk, provide
from ddptrain.data.packed.file import size_of_file
from ddptrain.data.samples import base
from ddptrain.data.samples.detection import DetectionSamples
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.structures import SampleKey
from ddptrain.system.memory import keep_memory

BLOCK = 12


def samples_of(table: AnnotationTable, size: int, mosaic: float, train: bool = True) -> DetectionSamples:
    """Training samples of which a part are mosaics of any images of the dataset, or validation samples."""

    def keys_of(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(positions), positions * 7919 % len(table)

    annotated = np.ones((1, len(table.names)), bool)
    if not train:
        return DetectionSamples([table], annotated, size, None)
    augment = DetectionAugment(mosaic=mosaic)
    return DetectionSamples([table], annotated, size, augment, partners=Partners(keys_of, 10**6, 10**9))


def per_sample(make: Callable[[int], object], first: int) -> float:
    """Milliseconds of processor time, the mean of a block."""
    start = time.process_time()
    for position in range(first, first + BLOCK):
        make(position)
    return (time.process_time() - start) * 1e3 / BLOCK


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=os.path.join("..", "shared", "data", "auair_subset"), help="a detection dataset")
    parser.add_argument("--format", default="auair")
    parser.add_argument("--split", default=None)
    parser.add_argument("--size", type=int, default=640, help="of the network's input")
    parser.add_argument("--samples", type=int, default=120, help="of each way")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    base.RECENT_BYTES = 0
    keep_memory()  # as a loader process does
    config = DetectionDataset(name="benchmark", format=args.format, root=args.root, split=args.split)
    table, _ = read(config, "drop")
    first_size = " x ".join(map(str, table.sizes[0].tolist()))
    print(f"{len(table)} images of {args.root}, the first of {first_size} pixels, at {args.size}; ms of processor time")
    print(f"{'':12} {'file':>8} {'disk':>8} {'ram':>8} {'ratio':>7} {'packed':>10} {'in':>8}")
    with tempfile.TemporaryDirectory() as folder:
        talk = Talk(lambda line: None, lambda line: None)
        for name, mosaic, train in (("mosaic", 1.0, True), ("one image", 0.0, True), ("evaluation", 0.0, False)):
            ways = [samples_of(table, args.size, mosaic, train) for _ in range(3)]
            (plan,) = ways[0].plans()
            took = 0.0
            for samples, where in zip(ways[1:], ("disk", "ram")):
                start = time.perf_counter()
                packed = provide({name: plan}, where, Path(folder), talk)  # type: ignore[arg-type]
                took = max(took, time.perf_counter() - start)
                samples.use({("images", 0): packed[name]})
            blocks: list[list[float]] = [[], [], []]
            for first in range(0, args.samples, BLOCK):
                for found, samples in zip(blocks, ways):
                    found.append(per_sample(lambda p: samples[SampleKey(p, 0, p * 7919 % len(table))], first))  # noqa: B023
            file, disk, ram = (statistics.median(found) for found in blocks)
            size = size_of_file(plan) / 1e9
            print(f"{name:12} {file:8.2f} {disk:8.2f} {ram:8.2f} {disk / file:7.2f} {size:7.2f} GB {took:6.1f} s")


if __name__ == "__main__":
    main()

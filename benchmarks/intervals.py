"""How long 1000 bootstrap draws of a detector's metrics take, from stored matches.

    python benchmarks/intervals.py

CPU time of AP, AP50 and APs in all and of each class, as `ddptrain eval` prints them; beside it what 1000 evaluations of drawn
images by the package's own evaluation would take, from one of them. The workloads are synthetic: many small objects in few
images, and COCO's numbers of images, classes and detections.
"""

from __future__ import annotations

import resource
from functools import partial
from time import process_time

import numpy as np

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth
from ddptrain.metrics.coco import evaluate
from ddptrain.metrics.errors import find_errors, find_overlaps
from ddptrain.metrics.matching import match
from ddptrain.metrics.resample import DRAWS, detection_metrics, over_draws
from ddptrain.metrics.suspects import find_suspects

WORKLOADS = {"aerial": (548, 10, 39_136, 164_400), "coco": (5_000, 80, 36_335, 500_000)}
"""Images, classes, objects, detections."""


def world(images: int, classes: int, objects: int, detections: int) -> tuple[GroundTruth, DetectionArrays]:
    """Objects anywhere, and detections of which each object gets some that are near it."""
    rng = np.random.default_rng(0)
    image = np.sort(rng.integers(images, size=objects))
    corner, side = rng.uniform(0, 900, (objects, 2)), rng.lognormal(3.5, 0.7, (objects, 2))
    boxes = np.concatenate([corner, corner + side], 1)
    labels = rng.integers(classes, size=objects)
    none = np.zeros(objects, bool)
    ends = np.searchsorted(image, np.arange(images + 1))
    truth = GroundTruth("d", boxes, labels, none, none, side.prod(1), ends, np.ones(classes, bool))
    of = rng.integers(objects, size=detections)
    near = rng.random(detections) < 0.25
    moved = boxes[of] + rng.normal(size=(detections, 4)) * np.tile(side[of], 2) * np.where(near, 0.06, 1.5)[:, None]
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    score = np.clip(rng.normal(np.where(near, 0.5, 0.1), 0.2), 0.001, 1)
    return truth, DetectionArrays(image[of], moved.astype(np.float32), score.astype(np.float32), labels[of])


def main() -> None:
    """Print a row for each workload."""
    columns = ("workload", "detections", "objects", "evaluation", f"{DRAWS} draws", "by evaluations", "errors, suspects")
    print("".join(f"{c:>{len(c) + 2}}" for c in columns))
    for name, sizes in WORKLOADS.items():
        truth, found = world(*sizes)
        classes = [f"c{k}" for k in range(sizes[1])]
        group = np.zeros(truth.images, np.int64)
        begin = process_time()
        evaluate([truth], [found], classes)
        one = process_time() - begin
        matches = match(truth, found)
        metrics = partial(detection_metrics, matches, classes, keys=["AP", "AP50", "APs"])
        begin = process_time()
        over_draws(metrics, group, DRAWS, 0)
        draws = process_time() - begin
        begin = process_time()
        pairs = find_overlaps(matches)
        find_errors(matches, pairs)
        find_suspects(matches, pairs)
        rest = process_time() - begin
        cells = (name, f"{sizes[3]:,}", f"{sizes[2]:,}", *(f"{v:.1f} s" for v in (one, draws, DRAWS * one, rest)))
        print("".join(f"{cell:>{len(c) + 2}}" for cell, c in zip(cells, columns)), flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()

"""How long COCO's metrics take, and whether they are those of pycocotools.

    python benchmarks/evaluation.py [--rounds 3]
    python benchmarks/evaluation.py --linear
    python benchmarks/evaluation.py --memory 100000

Two workloads of synthetic scenes, as large as VisDrone's validation set (548 images, 10 classes, 39 136 objects, 164 400
detections) and COCO's (5000 images, 80 classes, 35 000 objects, 500 000 detections). Each program starts from arrays in memory
and ends with all numbers; ours runs before and after pycocotools, which takes the longest and runs once. Times are those of the
processor, medians of the rounds. The difference is the largest of any precision at any recall, threshold, class and size.

`--linear`: 1, 2, 4 and 8 times the detections of the first workload. `--memory`: the peak memory of an evaluation of so many
images with 100 detections each.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ddptrain.metrics import coco
from ddptrain.metrics.arrays import DetectionArrays, GroundTruth
from ddptrain.metrics.matching import match
from ddptrain.metrics.precision import precision_at_recalls
from ddptrain.reporting.table import Table

WORKLOADS = {"VisDrone val": (548, 10, 39_136, 164_400), "COCO val": (5000, 80, 35_000, 500_000)}
WIDTH, HEIGHT = 1360, 765


def make_scenes(images: int, classes: int, objects: int, detections: int, seed: int = 0) -> tuple[GroundTruth, DetectionArrays]:
    """Objects anywhere, their classes as unequal as in real sets, one in a hundred a crowd; of the detections more than half
    are near an object, some of another class, the others anywhere."""
    rng = np.random.default_rng(seed)
    image = np.sort(rng.integers(0, images, objects))
    sides = np.exp(rng.normal(3.2, 0.8, (objects, 2)))
    corner = rng.random((objects, 2)) * [WIDTH, HEIGHT]
    boxes = np.concatenate([corner, corner + sides], 1).astype(np.float32)
    chance = 1 / np.arange(1, classes + 1)
    chance /= chance.sum()
    labels = rng.choice(classes, objects, p=chance)
    offsets = np.searchsorted(image, np.arange(images + 1))
    crowd = rng.random(objects) < 0.01
    no_region = np.zeros(objects, bool)
    truth = GroundTruth("synthetic", boxes, labels, no_region, crowd, sides.prod(1), offsets, np.ones(classes, bool))
    of, near = rng.integers(0, objects, detections), rng.random(detections) < 0.6
    moved = boxes[of] + np.tile(sides[of], 2) * rng.normal(size=(detections, 4)) * rng.choice([0.03, 0.1, 0.3], (detections, 1))
    corner = rng.random((detections, 2)) * [WIDTH, HEIGHT]
    found = np.where(near[:, None], moved, np.concatenate([corner, corner + sides[of]], 1))
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    where = np.where(near, image[of], rng.integers(0, images, detections))
    taken = np.where(rng.random(detections) < 0.85, labels[of], rng.choice(classes, detections, p=chance))
    scores = rng.random(detections).astype(np.float32)
    order = np.lexsort((-scores, where))
    return truth, DetectionArrays(where[order], found[order].astype(np.float32), scores[order], taken[order])


def as_coco(truth: GroundTruth) -> dict[str, Any]:
    """The truth as the content of a COCO JSON."""
    xywh = truth.boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    columns = (truth.image_of_boxes(), truth.labels, xywh, truth.area, truth.crowd)
    rows = zip(*(c.tolist() for c in columns))
    annotations = [
        {"id": n, "image_id": i, "category_id": k, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for n, (i, k, box, area, crowd) in enumerate(rows, 1)
    ]
    size = {"width": WIDTH, "height": HEIGHT}
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", **size} for i in range(truth.images)],
        "categories": [{"id": k, "name": str(k)} for k in range(len(truth.annotated))],
        "annotations": annotations,
    }


def as_results(found: DetectionArrays) -> np.ndarray:
    """float64 `[n, 7]`: image, left, top, width, height, score, class, as `loadRes` takes them."""
    xywh = found.boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    return np.column_stack([found.image, xywh, found.scores, found.labels])


def ours(truth: GroundTruth, found: DetectionArrays) -> dict[str, float]:
    """All values of all classes."""
    return coco.evaluate([truth], [found], [str(k) for k in range(len(truth.annotated))])


def pycocotools(truth: GroundTruth, found: DetectionArrays) -> np.ndarray:
    """The reference, which takes dictionaries; precision `[T, R, K, A]`, NaN for what is unknown."""
    whole = COCO()
    whole.dataset = as_coco(truth)
    whole.createIndex()
    evaluation = COCOeval(whole, whole.loadRes(as_results(found)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]
    return np.where(precision == -1, np.nan, precision)


def timed(program: Callable[..., Any], scenes: tuple[GroundTruth, DetectionArrays]) -> tuple[float, Any]:
    """Processor time in seconds, and what the program returns."""
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.process_time()
        result = program(*scenes)
        return time.process_time() - start, result


def compare(rounds: int) -> Table:
    """Both programs on both workloads."""
    rows = []
    for name, sizes in WORKLOADS.items():
        scenes = make_scenes(*sizes)
        mine = [timed(ours, scenes)[0] for _ in range(rounds)]
        theirs, reference = timed(pycocotools, scenes)
        mine += [timed(ours, scenes)[0] for _ in range(rounds)]
        median, precision = statistics.median(mine), precision_at_recalls(match(*scenes)).precision
        known = ~np.isnan(reference)
        assert (known == ~np.isnan(precision)).all()
        difference = np.abs(precision - reference)[known].max()
        rows.append([name, sizes[0], sizes[1], sizes[3], theirs, median, f"{theirs / median:.0f} x", f"{difference:.1e}"])
    header = ("workload", "images", "classes", "detections", "pycocotools s", "ddptrain s", "faster", "largest difference")
    return Table(header, rows)


def linear(rounds: int) -> Table:
    """Seconds for more and more detections, in as many more images."""
    images, classes, objects, detections = WORKLOADS["VisDrone val"]
    rows = []
    for times in (1, 2, 4, 8):
        scenes = make_scenes(times * images, classes, times * objects, times * detections)
        median = statistics.median(timed(ours, scenes)[0] for _ in range(rounds))
        rows.append([times * detections, median, 1e6 * median / (times * detections)])
    return Table(("detections", "seconds", "µs each"), rows)


def peak_memory(images: int, each: int) -> str:
    """Of an evaluation in this process, in words."""
    scenes = make_scenes(images, 80, 7 * images, each * images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = sum(column.nbytes for column in scenes[1])
    start = time.perf_counter()
    coco.evaluate([scenes[0]], [scenes[1]], [str(k) for k in range(80)])
    after, spent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter() - start
    return (
        f"{images} images, {each * images} detections ({held / 1e9:.2f} GB): peak {after / 1e6:.2f} GB of memory, "
        f"{before / 1e6:.2f} GB before the evaluation, {spent:.0f} s"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--linear", action="store_true")
    parser.add_argument("--memory", type=int, metavar="IMAGES")
    options = parser.parse_args()
    if options.memory:
        print(peak_memory(options.memory, 100))
        return
    print((linear(options.rounds) if options.linear else compare(options.rounds)).text())


if __name__ == "__main__":
    main()

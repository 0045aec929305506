"""Images per second of the training loader, beside OpenCV's own calls on the same images.

    python benchmarks/loader.py [--root ../shared/data/bccd] [--images 800] [--epoch 100000]

Then the memory of two workers over an epoch of 100 000 tiny images with 50 boxes each, five million boxes: what each has for
itself must not grow.

The bare calls decode, resize (by the same range of zooms) and change the colours, in one process, without matrices,
boxes or batches: what remains is the price of everything else.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

import cv2
import numpy as np

from ddptrain.config.detection import DetectionAugment, DetectionDataset
from ddptrain.data.formats.build import read
from ddptrain.data.loading.batches import train_loader
from ddptrain.data.loading.loader import Loader
from ddptrain.data.samples.detection import DetectionSamples
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.boxes import AnnotationTable

BATCH = 16


def bare(table: AnnotationTable, size: int, images: int) -> float:
    """Images per second of OpenCV's calls alone."""
    cv2.setNumThreads(0)
    tables = [np.arange(256, dtype=np.uint8) for _ in range(3)]
    start = time.perf_counter()
    for i in range(images):
        data = np.fromfile(table.path(i % len(table)), np.uint8)
        image = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        scale = size / max(height, width) * (0.5 + i % 11 / 10)
        image = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_LINEAR)
        image = image[:size, :size]
        planes = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        cv2.cvtColor(cv2.merge([cv2.LUT(p, t) for p, t in zip(planes, tables)]), cv2.COLOR_HSV2RGB)
    return images / (time.perf_counter() - start)


def loader_of(table: AnnotationTable, size: int, workers: int) -> Loader:
    """The training loader of a table."""
    samples = DetectionSamples([table], np.ones((1, len(table.names)), bool), size, DetectionAugment())

    def keys_of(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(positions), positions * 7919 % len(table)

    return train_loader(
        samples, keys_of, position=0, steps=None, global_batch=BATCH, micro_batch=BATCH, rank=0, world_size=1, workers=workers
    )


def loaded(table: AnnotationTable, size: int, images: int, workers: int) -> float:
    """Images per second of the training loader, from its first batch on."""
    with loader_of(table, size, workers) as loader:
        # batches that were prefetched before the clock starts count for little among so many
        next(loader)
        start = time.perf_counter()
        for _ in range(images // BATCH):
            next(loader)
        return images // BATCH * BATCH / (time.perf_counter() - start)


def memory(images: int, boxes: int = 50, size: int = 64) -> None:
    """Print what two workers have for themselves, and their share of what they have together (PSS), over an epoch."""
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "a.jpg")
        cv2.imwrite(path, np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8))
        corners = np.random.default_rng(1).uniform(0, size / 2, (images * boxes, 4)).astype(np.float32)
        corners[:, 2:] += size / 2
        table = AnnotationTable(
            name="many",
            root=place,
            names=("thing",),
            paths=Paths.pack([path] * images),
            sizes=np.full((images, 2), size, np.int32),
            offsets=np.arange(images + 1, dtype=np.int64) * boxes,
            boxes=corners,
            labels=np.zeros(len(corners), np.int32),
            ignore=np.zeros(len(corners), bool),
            crowd=np.zeros(len(corners), bool),
            area=np.ones(len(corners), np.float32),
        )
        print(f"\nmemory of 2 workers, {images} images with {boxes} boxes each, MB")
        print(f"{'images':>8} {'their own':>10} {'PSS':>8}")
        batches = images // BATCH
        with loader_of(table, size, 2) as loader:
            for number in range(1, batches + 1):
                next(loader)
                if number in {200, *(batches * quarter // 4 for quarter in range(1, 5))}:
                    own, share = (sum(held(p.pid, name) for p in loader.processes) for name in ("Private_Dirty", "Pss"))
                    print(f"{number * BATCH:>8} {own:>10.1f} {share:>8.1f}", flush=True)


def held(process: int, kind: str) -> float:
    """MB that a process holds of one kind of memory."""
    with open(f"/proc/{process}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(f"{kind}:")) / 1e3


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=os.path.join("..", "shared", "data", "bccd"), help="a Pascal VOC folder")
    parser.add_argument("--split", default="trainval", help="its split")
    parser.add_argument("--images", type=int, default=800, help="images per measurement")
    parser.add_argument(
        "--epoch", type=int, default=100_000, help="images of the epoch over which memory is watched, a multiple of 64"
    )
    args = parser.parse_args()
    table, _ = read(DetectionDataset(name="benchmark", format="voc", root=args.root, split=args.split), "drop")
    print(f"images per second, {len(table)} files of {args.root}, batches of {BATCH}, {os.cpu_count()} cores")
    print(f"{'size':>5} {'OpenCV alone':>13} {'0 workers':>10} {'1 worker':>10} {'2 workers':>10}")
    for size in (320, 640):
        rates = [bare(table, size, args.images), *(loaded(table, size, args.images, w) for w in (0, 1, 2))]
        print(f"{size:>5} {rates[0]:>13.0f}" + "".join(f" {r:>10.0f}" for r in rates[1:]))
    memory(args.epoch)


if __name__ == "__main__":
    main()

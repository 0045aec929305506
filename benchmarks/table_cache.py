"""How long a cached table of a million images and twenty million boxes takes to open.

    python benchmarks/table_cache.py [--images 1000000] [--boxes 20] [--files 200000]

Prints the time to store the table, to open it (mapped), to read every hundredth image's rows, the memory that opening
takes, and the time to find out whether one of `--files` files has changed (this part grows with the number of files).
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ddptrain.data.formats.cache import fingerprint, open_table, store_table
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults


def timed(what: str, run: Callable[[], object]) -> object:
    start = time.perf_counter()
    result = run()
    print(f"{what:<44} {time.perf_counter() - start:8.3f} s")
    return result


def make_table(images: int, boxes: int) -> AnnotationTable:
    rng = np.random.default_rng(0)
    rows = images * boxes
    corners = rng.uniform(0, 500, (rows, 4)).astype(np.float32)
    corners[:, 2:] += corners[:, :2] + 1
    return AnnotationTable(
        name="large",
        root="datasets/large",
        names=tuple(f"class {i}" for i in range(10)),
        paths=Paths.pack(f"datasets/large/images/train/{i:012d}.jpg" for i in range(images)),
        sizes=np.full((images, 2), 1024, np.int32),
        offsets=np.arange(images + 1, dtype=np.int64) * boxes,
        boxes=corners,
        labels=rng.integers(0, 10, rows, np.int32),
        ignore=np.zeros(rows, bool),
        crowd=np.zeros(rows, bool),
        area=np.ones(rows, np.float32),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--boxes", type=int, default=20, help="per image")
    parser.add_argument("--files", type=int, default=200_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder) / "tables"
        table = make_table(args.images, args.boxes)
        print(f"{len(table)} images, {len(table.boxes)} boxes")
        timed("store", lambda: store_table(tables, "key", "fingerprint", [], table, Faults()))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        opened, _ = timed("open", lambda: open_table(tables / "key-fingerprint", AnnotationTable))  # type: ignore[misc]
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print(f"{'memory touched by opening':<44} {pages * resource.getpagesize() / 2**20:8.1f} MiB")
        hundredth = range(0, len(opened), 100)
        timed(
            "path and boxes of every 100th image",
            lambda: [(opened.path(i), opened.boxes[opened.rows(i)].sum()) for i in hundredth],
        )
        root = Path(folder) / "files"
        root.mkdir()
        for i in range(args.files):
            (root / f"{i:012d}.jpg").touch()
        timed(f"has one of {args.files} files changed", lambda: fingerprint(root))


if __name__ == "__main__":
    main()

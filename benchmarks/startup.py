"""How long `ddptrain train` takes to its first step, with a warm table cache, on many small images.

    python benchmarks/startup.py [--images 100000] [--boxes 7] [--runs 3]

Wall time and processor time of the trainer when it has imported its packages (measured in a process of its own), when it has
read its datasets and built its model (the log begins), and when it has made its first step; medians of some starts. The images
are hard links of a few small JPEGs, with a COCO file of boxes for all of them; training and validation lie in one folder, as
they often do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

CONFIG = """
name: startup
output: ROOT/runs
task: detection
classes: [a, b, c]
data:
  train: [{name: many, format: coco, root: ROOT/data, images: images, annotations: annotations/train.json}]
  val: [{name: few, format: coco, root: ROOT/data, images: images, annotations: annotations/val.json}]
  image_size: 64
  workers: 2
train: {steps: 2, global_batch: 8, device: cpu, threads: 1}
eval: {every_epochs: null}
checkpoint: {every_epochs: null}
"""
LINKS = 50_000
"""Names that one file of common file systems can have."""
IMPORTS = """
from ddptrain.system.imports import quick_imports
with quick_imports(True):
    import ddptrain.cli, ddptrain.engine.trainer
"""


def write_dataset(root: Path, images: int, boxes: int) -> None:
    """Small images by hard links, and a COCO file for all of them and one for the first eight."""
    for folder in ("images", "annotations"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(images):
        source = root / f"{i // LINKS}.jpg"
        if not source.exists():
            cv2.imwrite(str(source), rng.integers(0, 255, (48, 64, 3)).astype(np.uint8))
        os.link(source, root / "images" / f"{i:07d}.jpg")
    for split, count in (("train", images), ("val", 8)):
        pictures = [{"id": i, "file_name": f"{i:07d}.jpg", "width": 64, "height": 48} for i in range(count)]
        rows = [
            {"id": i * boxes + b, "image_id": i, "category_id": b % 3, "bbox": [b, 4, 20, 20], "area": 400, "iscrowd": 0}
            for i in range(count)
            for b in range(boxes)
        ]
        content = {"images": pictures, "annotations": rows, "categories": [{"id": c, "name": "abc"[c]} for c in range(3)]}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))


def used(pid: int) -> float:
    """Seconds of processor time of a process that runs, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(config: Path, name: str, environ: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Wall and processor time at which a run of two steps comes to its marks."""
    began, marks = time.perf_counter(), {}
    command = [sys.executable, "-m", "ddptrain", "train", str(config), f"name={name}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            for mark, text in (("the log begins", "ddptrain "), ("first step", "first step")):
                if line.startswith(text) and mark not in marks:
                    marks[mark] = (time.perf_counter() - began, used(run.pid))
    if len(marks) < 2:
        raise SystemExit(f"{' '.join(command)} did not train; start it by hand")
    return marks


def imports(environ: dict[str, str]) -> tuple[float, float]:
    """Wall and processor time of a process that only imports what training needs."""
    began, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, env=environ)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, spent


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--boxes", type=int, default=7, help="per image")
    parser.add_argument("--runs", type=int, default=3, help="starts of which the median counts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_dataset(root / "data", args.images, args.boxes)
        (root / "config.yaml").write_text(CONFIG.replace("ROOT", folder))
        environ = {**os.environ, "DDPTRAIN_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        time.sleep(2)  # files that were just written are not stored in the cache
        cold = start(root / "config.yaml", "cold", environ)
        found: dict[str, list[tuple[float, float]]] = {"imports": [], "the log begins": [], "first step": []}
        for number in range(args.runs):
            found["imports"].append(imports(environ))
            for mark, times in start(root / "config.yaml", f"warm{number}", environ).items():
                found[mark].append(times)
        print(f"{args.images} images, {args.images * args.boxes} boxes; with a cold cache {cold['first step'][0]:.1f} s")
        print(f"{'':16} {'wall':>8} {'processor':>10}")
        for mark, rows in found.items():
            wall, cpu = (statistics.median(column) for column in zip(*rows))
            print(f"{mark:16} {wall:6.2f} s {cpu:8.2f} s")


if __name__ == "__main__":
    main()

"""How fast a detector trains, beside its bare network: `make bench-gpu`, some minutes on a GPU.

    python benchmarks/gpu/bench.py [--device cuda|cpu] [--size s] [--image-size 640] [--batch 64] [--steps 200]
                                   [--workers N] [--images 512] [--peer PYTHON]

Trains on JPEGs of 1920 x 1080 pixels with mosaic, in bf16, and measures the forward and backward pass of the same network on
tensors that lie on the device: the goal is 0.95 of that with 16 cores. Then shows where the time of a step goes. `--peer` is a
Python in whose environment the usual package is; its command trains on the same images. Without a GPU there is nothing to
measure; `--device cpu` tries the script all the same.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import torch

import ddptrain
from ddptrain.config import load_config
from ddptrain.data.synthetic.scenes import SIZE, make_scene
from ddptrain.engine.arithmetic import autocast
from ddptrain.reporting.table import Table
from ddptrain.system.limits import available_cores
from ddptrain.tasks.build import build_task

GOAL, CLASSES = 0.95, ("car", "bus", "pedestrian")
FRAME, NOISE = (1920, 1080), 6
"""Of the images: width and height, and the deviation of the noise that makes their files as large as those of cameras."""
CONFIG = """
task: detection
name: bench
classes: [car, bus, pedestrian]
data:
  train: [{name: scenes, format: yolo, root: ROOT, split: train}]
  val: [{name: scenes, format: yolo, root: ROOT, split: val}]
eval: {every_epochs: null}
checkpoint: {every_epochs: null}
monitor: {tensorboard: false}
"""


class Speed(NamedTuple):
    """Images a second, and the share of the time that was spent waiting for data where that is known."""

    images: float
    wait: float | None = None


def write_scenes(root: Path, count: int, held_out: int = 8) -> None:
    """Images and labels in the YOLO layout, in `train` and a few in `val`."""
    noise = torch.empty(FRAME[1], FRAME[0], 3).normal_(0, NOISE, generator=torch.Generator().manual_seed(0)).numpy()
    for number in range(count + held_out):
        split = "train" if number < count else "val"
        scene = make_scene(0, number, crowds=False)
        image = cv2.resize(scene.image, FRAME, interpolation=cv2.INTER_CUBIC) + noise
        for part, name in (("images", f"{number}.jpg"), ("labels", f"{number}.txt")):
            (root / part / split).mkdir(parents=True, exist_ok=True)
            path = root / part / split / name
            if part == "images":
                cv2.imwrite(str(path), image.clip(0, 255).astype("uint8"))
            else:
                rows = ((CLASSES.index(n), (a + c) / 2, (b + d) / 2, c - a, d - b) for n, a, b, c, d in scene.objects)
                path.write_text("".join(f"{k} {' '.join(f'{v / SIZE:.6f}' for v in box)}\n" for k, *box in rows))
    names = "".join(f"  {k}: {name}\n" for k, name in enumerate(CLASSES))
    (root / "data.yaml").write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames:\n{names}")


def overrides(args: argparse.Namespace, output: Path) -> list[str]:
    """What the arguments say, as keys of the config; the first half of the steps is not counted."""
    return [
        f"output={output}",
        f"data.image_size={args.image_size}",
        f"data.workers={args.workers}",
        f"data.augment={{mosaic: 1, close_epochs: 0, pool: {max(8, args.batch)}}}",
        f"model={{name: yolo, size: {args.size}}}",
        f"train={{steps: {2 * args.steps}, global_batch: {args.batch}, micro_batch: {args.batch}}}",
        f"train.device={args.device}",
        "train.precision=bf16",
        f"monitor.every_steps={args.steps}",
        f"monitor.profile={min(10, args.steps // 3)}",
    ]


def ours(config: Path, keys: list[str]) -> tuple[Speed, str]:
    """The last half of a run, and the table of its parts."""
    folder = Path(ddptrain.train(config, *keys).folder)
    *_, last = re.findall(r" ([\d.e+]+) img/s  data (\d+)%", (folder / "log.txt").read_text())
    return Speed(float(last[0]), float(last[1]) / 100), (folder / "profile" / "steps.txt").read_text()


def bare(config: Path, keys: list[str], steps: int, batch: int) -> Speed:
    """Forward and backward pass of the network alone."""
    run = load_config(config, keys)
    device, side = torch.device(run.train.device), run.data.image_size
    model = build_task(run).build_model().to(device).to(memory_format=torch.channels_last).train()
    images = torch.rand(batch, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(steps + 3):
        began = time.perf_counter()
        with autocast(device, run.train.precision):
            prediction = model(images)
        (prediction.logits.float().mean() + prediction.distances.float().mean()).backward()
        for p in model.parameters():
            p.grad = None
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return Speed(batch / statistics.median(seconds[3:]))


def peer(python: str, root: Path, args: argparse.Namespace) -> Speed:
    """The usual package's own command, without its first epoch."""
    epochs = 1 + max(2, args.steps * args.batch // args.images)
    settings = {
        "data": root / "data.yaml", "model": f"yolov8{args.size}.yaml", "imgsz": args.image_size, "batch": args.batch,
        "workers": args.workers, "epochs": epochs, "device": 0 if args.device == "cuda" else "cpu", "project": root,
        "name": "peer", "close_mosaic": 0, "val": False, "plots": False, "save": False, "pretrained": False,
    }  # fmt: skip
    command = [str(Path(python).with_name("yolo")), "detect", "train", *(f"{k}={v}" for k, v in settings.items())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ | {"YOLO_OFFLINE": "true"})
    if done.returncode:
        sys.exit(f"the usual package failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    with (root / "peer" / "results.csv").open(newline="") as file:
        times = [float(row["time"]) for row in csv.DictReader(file, skipinitialspace=True)]
    return Speed(args.images * (len(times) - 1) / (times[-1] - times[0]))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments; on the CPU the defaults are tiny."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--peer", help="a Python in whose environment the usual package is installed")
    parser.add_argument("--size", choices="nsml", help="of the network")
    for name, what in (
        ("image-size", "pixels"), ("batch", "images in a step"), ("steps", "that are counted"),
        ("workers", "loader processes"), ("images", "in the dataset"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, help=what)
    args = parser.parse_args(arguments)
    full = {"size": "s", "image_size": 640, "batch": 64, "steps": 200, "workers": available_cores(), "images": 512}
    tiny = {"size": "n", "image_size": 64, "batch": 4, "steps": 6, "workers": 0, "images": 8}
    for key, value in (full if args.device == "cuda" else tiny).items():
        if getattr(args, key) is None:
            setattr(args, key, value)
    return args


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    args = parse(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing to measure; --device cpu tries the script at a tiny size")
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        root, config = Path(place), Path(place) / "bench.yaml"
        write_scenes(root / "scenes", args.images)
        config.write_text(CONFIG.replace("ROOT", str(root / "scenes")))
        keys = overrides(args, root / "runs")
        own, parts = ours(config, keys)
        speeds = {"bare forward and backward": bare(config, keys, args.steps, args.batch), "ours": own}
        if args.peer:
            speeds["usual package"] = peer(args.peer, root / "scenes", args)
    whole = speeds["bare forward and backward"].images
    rows = [[name, s.images, None if s.wait is None else 100 * s.wait, s.images / whole] for name, s in speeds.items()]
    device = torch.cuda.get_device_name() if args.device == "cuda" else "the CPU"
    print(f"\nsize {args.size}, {args.image_size} px, batch {args.batch}, bf16, {args.workers} workers, on {device}")
    print(Table(["what", "images/s", "% waiting for data", "of bare"], rows).text(2))
    print(
        f"goal: {GOAL} of bare with 16 cores; {'reached' if own.images >= GOAL * whole else 'missed'} here\n\n{parts}", end=""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

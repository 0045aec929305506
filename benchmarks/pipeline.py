"""CPU time of a training sample at 640 pixels, ours and others', on large, middle and small JPEGs.

    python -m venv peer && peer/bin/pip install ultralytics
    python benchmarks/pipeline.py --peer peer/bin/python [--data ../shared/data] [--samples 32] [--rounds 7]

Each contestant is a process of its own, with one thread, that is asked for a block of samples at a time; they take turns, so
that a busy machine slows all of them. A number is the median over the rounds. Each file has many names here, so that few
images look like a large dataset and none is decoded already by chance. All draw the same: mosaic, zoom 0.5 to 1.5, shift 0.1,
HSV, flip. `--peer` is a Python in whose environment the usual package is; without it, its rows are left out. The 4K images are
those of 1080p, enlarged."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZE, NAMES = 640, 640
"""Side of the input in pixels, and names of files in a dataset."""
Make = Callable[[int], Any]
"""Makes the sample at a position."""


def decode(folder: str, kept: bool) -> dict[str, Make]:
    """OpenCV's decoder alone."""
    cv2: Any = importlib.import_module("cv2")
    cv2.setNumThreads(0)
    if kept:
        importlib.import_module("ddptrain.system.memory").keep_memory()
    paths = sorted(entry.path for entry in os.scandir(os.path.join(folder, "images", "train")))

    def at(flags: int) -> Make:
        return lambda position: cv2.imdecode(np.fromfile(paths[position * 7919 % NAMES], np.uint8), flags)

    return {"full": at(cv2.IMREAD_COLOR)} | ({} if kept else {"half": at(cv2.IMREAD_REDUCED_COLOR_2)})


def ours(folder: str) -> dict[str, Make]:
    """The samples of this package, as a loader process makes them."""
    import cv2

    from ddptrain.config.detection import DetectionAugment, DetectionDataset
    from ddptrain.data.augment.partners import Partners
    from ddptrain.data.formats.build import read
    from ddptrain.data.packed.build import Talk, provide
    from ddptrain.data.samples.detection import DetectionSamples
    from ddptrain.structures import SampleKey
    from ddptrain.system.memory import keep_memory

    cv2.setNumThreads(0)
    keep_memory()
    table, _ = read(DetectionDataset(name="benchmark", format="yolo", root=folder, split="train"), "drop")

    def keys_of(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(positions), positions * 7919 % len(table)

    def way(mosaic: float, pool: int | None, augmented: bool = True, packed: bool = False) -> Make:
        augment = DetectionAugment(mosaic=mosaic) if augmented else None
        partners = Partners(keys_of, len(table), float("inf"), pool) if mosaic else None
        samples = DetectionSamples([table], np.ones((1, len(table.names)), bool), SIZE, augment, partners=partners)
        if packed:
            (plan,) = samples.plans()
            talk = Talk(lambda line: None, lambda line: None)
            samples.use({("images", 0): provide({"packed": plan}, "disk", Path(folder), talk)["packed"]})
        return lambda position: samples[SampleKey(position, 0, position * 7919 % len(table))]

    return {
        "mosaic, pool null": way(1, None),
        "mosaic, pool 16": way(1, 16),
        "mosaic, pool 64": way(1, 64),
        "mosaic, data.cache": way(1, None, packed=True),
        "single": way(0, None),
        "single, data.cache": way(0, None, packed=True),
        "letterbox": way(0, None, augmented=False),
    }


def torchvision(folder: str) -> dict[str, Make]:
    """Its transforms, version 2, on its own decoder: there is no mosaic among them."""
    import torch
    from torchvision import tv_tensors
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    paths = sorted(entry.path for entry in os.scandir(os.path.join(folder, "images", "train")))
    fit: Any = v2.Compose([v2.Resize(None, max_size=SIZE), v2.CenterCrop(SIZE)])
    jitter: Any = v2.Compose(
        [
            v2.RandomAffine(0, translate=(0.1, 0.1), scale=(0.5, 1.5), fill=114),
            v2.ColorJitter(brightness=0.4, saturation=0.7, hue=0.015),
            v2.RandomHorizontalFlip(),
        ]
    )

    def load(position: int) -> tuple[Any, Any]:
        image = tv_tensors.Image(decode_image(paths[position * 7919 % NAMES], ImageReadMode.RGB))
        height, width = image.shape[1:]
        boxes = torch.tensor([[0.0, 0, width / 2, height / 2]] * 5)
        return image, tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))  # type: ignore[call-arg]

    return {"single": lambda p: jitter(*fit(*load(p))), "letterbox": lambda p: fit(*load(p))}


def peer(folder: str) -> dict[str, Make]:
    """The usual package's dataset."""
    importlib.import_module("torch").set_num_threads(1)
    dataset, cfg = importlib.import_module("ultralytics.data.dataset"), importlib.import_module("ultralytics.cfg")
    importlib.import_module("cv2").setNumThreads(0)

    def way(mosaic: float, augmented: bool = True, cache: str | None = None) -> Make:
        options = cfg.get_cfg(overrides={"mosaic": mosaic})
        about = {"names": {i: str(i) for i in range(8)}, "nc": 8, "channels": 3}
        images = os.path.join(folder, "images", "train")
        kept = {"cache": cache} if cache else {}
        made = dataset.YOLODataset(
            img_path=images, imgsz=SIZE, augment=augmented, hyp=options, data=about, task="detect", **kept
        )
        return lambda position: made[position * 7919 % len(made)]

    return {
        "mosaic": way(1),
        "mosaic, own RAM cache": way(1, cache="ram"),
        "single": way(0),
        "letterbox": way(0, augmented=False),
    }


CONTESTANTS: dict[str, Callable[[str], dict[str, Make]]] = {
    "decode": lambda folder: decode(folder, kept=False),
    "decode, memory kept": lambda folder: decode(folder, kept=True),
    "torchvision": torchvision,
    "ours": ours,
    "usual package": peer,
}


def serve(name: str, folder: str) -> None:
    """Be a contestant: say which ways there are, then make the blocks that are asked for and tell their CPU seconds."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what packages print
    ways = CONTESTANTS[name](folder)
    print(*ways, sep="\t", file=answers)
    at = dict.fromkeys(ways, 0)
    for line in sys.stdin:
        way, count = line.rstrip("\n").split("\t")
        start = time.process_time()
        for _ in range(int(count)):
            ways[way](at[way])
            at[way] += 1
        print(time.process_time() - start, file=answers)


class Contestant:
    """A process that serves."""

    def __init__(self, name: str, python: str, folder: str, quiet: bool = True) -> None:
        command = [python, os.path.abspath(__file__), "--serve", name, folder]
        env = os.environ | {"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
            env=env,
        )
        self.name, self.ways = name, self._answer().split("\t")

    def seconds(self, way: str, count: int) -> float:
        """CPU seconds of a block."""
        assert self.process.stdin
        self.process.stdin.write(f"{way}\t{count}\n")
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended: run `{' '.join(map(str, self.process.args))}` to see why")  # type: ignore[arg-type]
        return line.rstrip("\n")


def datasets(data: str, place: str) -> dict[str, str]:
    """Three folders in the YOLO layout, of links."""
    import cv2

    from ddptrain.config.detection import DetectionDataset
    from ddptrain.data.formats.build import read

    aerial, _ = read(DetectionDataset(name="a", format="auair", root=os.path.join(data, "auair_subset")), "drop")
    cells, _ = read(DetectionDataset(name="b", format="voc", root=os.path.join(data, "bccd"), split="trainval"), "drop")
    large = []
    for i in range(0, len(aerial), 4):
        path = os.path.join(place, f"large_{i}.jpg")
        cv2.imwrite(path, cv2.resize(cv2.imread(aerial.path(i)), (3840, 2160), interpolation=cv2.INTER_CUBIC))
        large.append((path, i))
    sources = {
        "3840x2160": (aerial, large),
        "1920x1080": (aerial, [(aerial.path(i), i) for i in range(len(aerial))]),
        "640x480": (cells, [(cells.path(i), i) for i in range(len(cells))]),
    }
    for name, (table, files) in sources.items():
        for part in ("images", "labels"):
            os.makedirs(os.path.join(place, name, part, "train"))
        with open(os.path.join(place, name, "data.yaml"), "w") as file:
            file.write(f"train: images/train\nval: images/train\nnames: {list(table.names)}\n")
        for number in range(NAMES):
            path, i = files[number % len(files)]
            os.symlink(os.path.abspath(path), os.path.join(place, name, "images", "train", f"{number}.jpg"))
            rows = table.rows(i)
            boxes, size = table.boxes[rows].reshape(-1, 2, 2), table.sizes[i]
            centred = np.concatenate([boxes.mean(1) / size, (boxes[:, 1] - boxes[:, 0]) / size], 1)
            with open(os.path.join(place, name, "labels", "train", f"{number}.txt"), "w") as file:
                file.writelines(f"{k} {' '.join(f'{v:.6f}' for v in box)}\n" for k, box in zip(table.labels[rows], centred))
    return {name: os.path.join(place, name) for name in sources}


def measure(folder: str, python: str | None, samples: int, rounds: int) -> dict[tuple[str, str], float]:
    """Milliseconds of CPU a sample, of each way of each contestant."""
    names = [name for name in CONTESTANTS if python or name != "usual package"]
    contestants = [Contestant(n, python if python and n == "usual package" else sys.executable, folder) for n in names]
    taken: dict[tuple[str, str], list[float]] = {(c.name, way): [] for c in contestants for way in c.ways}
    for number in range(rounds + 1):
        for contestant in contestants:
            for way in contestant.ways:
                seconds = contestant.seconds(way, samples)
                if number:  # the first round fills buffers
                    taken[contestant.name, way].append(1e3 * seconds / samples)
    for contestant in contestants:
        contestant.process.communicate()
    return {key: statistics.median(times) for key, times in taken.items()}


def print_table(found: dict[str, dict[tuple[str, str], float]]) -> None:
    """Milliseconds, and beside ours the ratio to the usual package's and to the bare decode."""
    print(f"CPU milliseconds a sample, {SIZE} px; ratios: to the usual package / to OpenCV's full decode")
    print(f"{'':<36}" + "".join(f"{name:>24}" for name in found))
    for contestant, way in next(iter(found.values())):
        cells = []
        for times in found.values():
            time_ms = times[contestant, way]
            other = times.get(("usual package", way.split(",")[0]))
            ratios = f"{'-' if other is None else f'{time_ms / other:.2f}'} / {time_ms / times['decode', 'full']:.2f}"
            cells.append(f"{time_ms:.2f}  {ratios:>13}" if contestant == "ours" else f"{time_ms:.2f}{'':15}")
        print(f"{f'{contestant}: {way}':<36}" + "".join(f"{cell:>24}" for cell in cells))


def draw(found: dict[str, dict[tuple[str, str], float]], path: str) -> None:
    """The table as bars."""
    plt: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = plt.subplots(1, len(found), figsize=(5 * len(found), 5), sharey=True)
    for axis, (name, times) in zip(axes, found.items()):
        colours = ["tab:red" if c == "ours" else "tab:grey" for c, _ in times]
        axis.barh([f"{c}: {way}" for c, way in times], list(times.values()), color=colours)
        axis.set(title=name, xlabel="CPU ms a sample")
        axis.invert_yaxis()
    figure.tight_layout()
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    figure.savefig(path)
    print(f"drawn in {path}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join("..", "shared", "data"), help="folder of auair_subset and bccd")
    parser.add_argument("--peer", help="a Python in whose environment the usual package is installed")
    parser.add_argument("--samples", type=int, default=32, help="samples in a block")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each way")
    parser.add_argument(
        "--plot", default=os.path.join("runs", "pipeline.png"), help="picture, drawn where matplotlib is installed"
    )
    parser.add_argument("--serve", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(*args.serve)
        return
    with tempfile.TemporaryDirectory() as place:
        folders = datasets(args.data, place)
        found = {name: measure(folder, args.peer, args.samples, args.rounds) for name, folder in folders.items()}
    print_table(found)
    if importlib.util.find_spec("matplotlib"):
        draw(found, args.plot)


if __name__ == "__main__":
    main()

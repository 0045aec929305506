"""Of 30 wrong labels that are put into BCCD's test set, how many stand among the first 60 suspects?

A detector is trained on the training set as it is. In a copy of the test set (72 images) 30 labels are made wrong: a class is
swapped, a box is taken away, moved by about half its side, or put where nothing is. The run is evaluated on the copy, and the
list of suspected labels is read as a user reads it: from suspected_labels.csv, by file and box.

    python benchmarks/label_errors.py                                    # trains first: a quarter of an hour on one CPU core
    python benchmarks/label_errors.py --run runs/bccd --seeds 5          # a run that is there, and five sets of wrong labels

BCCD has wrong labels of its own (cells at the border that nobody labelled, most of all), which stand in the list, too.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from ddptrain.cli import main as ddptrain
from ddptrain.metrics.arrays import overlaps
from ddptrain.metrics.outcome import BoxOutcome, read_outcome
from ddptrain.tasks.detection.report import DetectionReport

DATA = Path(os.environ.get("DDPTRAIN_DATA", "../shared/data")).resolve() / "bccd"
CONFIG = "configs/bench/bccd.yaml"
CLASSES = ("RBC", "WBC", "Platelets")
KINDS = ("swapped class", "removed box", "moved box", "added box")
WRONG, HEAD = 30, 60
SIDES = ("xmin", "ymin", "xmax", "ymax")


class Planted(NamedTuple):
    """A label that was made wrong: where it is now, and where it was before (or would be right)."""

    kind: str
    file: str
    boxes: np.ndarray


def box_of(node: ElementTree.Element) -> np.ndarray:
    """`(x1, y1, x2, y2)`."""
    return np.array([float(node.findtext(f"bndbox/{side}") or 0) for side in SIDES])


def write_box(node: ElementTree.Element, box: np.ndarray) -> None:
    """Set the four sides."""
    for side, value in zip(SIDES, box.round().astype(int)):
        found = node.find(f"bndbox/{side}")
        assert found is not None
        found.text = str(value)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`[a, b]`."""
    a, b = a.reshape(-1, 4), b.reshape(-1, 4)
    return overlaps(a, b, np.zeros(len(b), bool))


def plant(folder: Path, seed: int) -> list[Planted]:
    """A copy of the dataset in VOC's layout, its images linked, with wrong labels in the test set."""
    rng = np.random.default_rng(seed)
    for name in ("ImageSets", "Annotations"):
        shutil.copytree(DATA / name, folder / name)
    (folder / "JPEGImages").symlink_to(DATA / "JPEGImages")
    stems = (DATA / "ImageSets/Main/test.txt").read_text().split()
    trees = {stem: ElementTree.parse(folder / f"Annotations/{stem}.xml") for stem in stems}
    out: list[Planted] = []
    while len(out) < WRONG:
        kind = KINDS[len(out) % len(KINDS)]
        stem = stems[int(rng.integers(len(stems)))]
        root = trees[stem].getroot()
        nodes = root.findall("object")
        done = change(kind, root, nodes, nodes[int(rng.integers(len(nodes)))], rng)
        if done is not None:
            stems.remove(stem)
            out.append(Planted(kind, f"{stem}.jpg", done))
    for stem, tree in trees.items():
        tree.write(folder / f"Annotations/{stem}.xml")
    return out


def change(
    kind: str, root: ElementTree.Element, nodes: list[ElementTree.Element], node: ElementTree.Element, rng: np.random.Generator
) -> np.ndarray | None:
    """Make one label wrong; the places that name it, or None where it cannot be done there."""
    box, boxes = box_of(node), np.array([box_of(n) for n in nodes])
    sides = box[2:] - box[:2]
    if sides.min() < 10:
        return None
    name = node.find("name")
    assert name is not None
    if kind == "swapped class":
        name.text = str(rng.choice([c for c in CLASSES if c != name.text]))
        return box[None]
    if kind == "removed box":
        root.remove(node)
        return box[None]
    if kind == "moved box":
        moved = box + np.tile(sides * rng.choice([-1, 1], 2) * rng.uniform(0.25, 0.45, 2), 2)
        moved = moved.clip(0, [640, 480, 640, 480])
        if not 0.15 < iou(moved, box)[0, 0] < 0.5:
            return None
        write_box(node, moved)
        return np.stack([box, moved])
    corner = rng.uniform([0, 0], np.maximum([639, 479] - sides, 1))
    added = np.concatenate([corner, corner + sides])
    if iou(added, boxes).max() > 0.1:
        return None
    copy = ElementTree.fromstring(ElementTree.tostring(node))
    write_box(copy, added)
    root.append(copy)
    return added[None]


def place(row: dict[str, str], planted: list[Planted]) -> int | None:
    """Which of the planted labels a row of the list names, by file and box."""
    shown = [[float(row[f"{what}_{v}"]) for v in ("x1", "y1", "x2", "y2")] for what in ("label", "detected") if row[what]]
    for i, wrong in enumerate(planted):
        if Path(row["file"]).name == wrong.file and iou(np.array(shown), wrong.boxes).max() >= 0.5:
            return i
    return None


def named(run: str, folder: Path, seed: int) -> int:
    """Print how many of one set of wrong labels the head of the list names."""
    planted = plant(folder / "bccd", seed)
    kept = folder / "evaluation.npz"
    if ddptrain(
        ["eval", run, f"data.val.0.root={folder / 'bccd'}", "--save", str(kept), "--json", str(folder / "metrics.json")]
    ):
        raise SystemExit("eval failed")
    outcome = read_outcome(kept)
    assert isinstance(outcome, BoxOutcome)
    rows = list(csv.DictReader(DetectionReport(outcome, lambda _: np.zeros((0, 0, 3), np.uint8)).suspects_csv().splitlines()))
    first: dict[int, int] = {}
    for rank, row in enumerate(rows, 1):
        found = place(row, planted)
        if found is not None:
            first.setdefault(found, rank)
    counts = []
    for kind in KINDS:
        own = [first.get(i) for i, wrong in enumerate(planted) if wrong.kind == kind]
        counts.append(f"{kind} {sum(r is not None and r <= HEAD for r in own)}/{len(own)}")
    total, early = (sum(r <= most for r in first.values()) for most in (HEAD, WRONG))
    print(f"seed {seed}: {total} of {WRONG} in the first {HEAD} ({early} in the first {WRONG}): {', '.join(counts)}")
    return total


def main() -> None:
    """Train if need be; plant; list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="run folder of a detector of BCCD's three classes (default: one is trained)")
    parser.add_argument("--seeds", type=int, default=6, help="sets of wrong labels (default 6)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = args.run
        if run is None:
            run = f"{name}/runs/bccd"
            own = ["data.workers=0", f"output={name}/runs", "train.epochs=16", "eval.every_epochs=16"]
            recipe = ["train.global_batch=16", "model.strides=[8, 16, 32]", "data.augment.scale=0.5"]
            mosaic = ["data.augment.mosaic=0.5", "data.augment.close_epochs=4"]
            if ddptrain(["train", CONFIG, *own, *recipe, *mosaic]):
                raise SystemExit("training failed")
        totals = []
        for seed in range(args.seeds):
            (Path(name) / str(seed)).mkdir()
            totals.append(named(run, Path(name) / str(seed), seed))
        print(f"mean {np.mean(totals):.1f} of {WRONG} in the first {HEAD}")


if __name__ == "__main__":
    main()

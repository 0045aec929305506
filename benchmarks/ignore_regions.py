"""Crowds that nobody labelled: marked as ignore regions, or left as background.

    python benchmarks/ignore_regions.py [--images 300] [--epochs 16] [--size 192] [--seeds 0 1]

Half of the synthetic aerial scenes hold a crowd of 14 people without labels, beside some people with labels. The same
budget and seeds train with the crowds marked, with the marks taken out of the files and, to see what was lost, with all
people labelled. Pedestrians are scored twice on the same new scenes: with the crowds marked (what is found in them is
neither right nor wrong) and with everybody in them labelled, which is what a detector should find.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

from short_runs import summary_of, table

from ddptrain.data.synthetic.scenes import write_skyview

CLASSES = ["pedestrian", "car", "bus"]
CASES: tuple[Literal["labelled", "marked", "unmarked"], ...] = ("labelled", "marked", "unmarked")
SCORED = {"outside": "marked", "everybody": "labelled"}
"""Name of each validation set, and what becomes of its crowds."""


def write_data(folder: Path, images: int) -> None:
    """The same scenes for every case; validation scenes are others."""
    if (folder / "written").exists():
        return
    for case in CASES:
        write_skyview(folder / case, "train", range(images), seed=0, crowds=case)
        write_skyview(folder / case, "val", range(images, images + max(images // 3, 8)), seed=0, crowds=case)
    (folder / "written").touch()


def make_config(case: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The run of one case."""

    def dataset(name: str, root: str, split: str, drop: list[str]) -> dict[str, Any]:
        return {"name": name, "format": "visdrone", "root": str(folder / root), "split": split, "drop": drop}

    val = [dataset(name, crowds, "val", ["car", "bus", "*"]) for name, crowds in SCORED.items()]
    return {
        "output": str(folder / "runs"),
        "classes": CLASSES,
        "data": {"train": [dataset("scenes", case, "train", ["*"])], "val": val, "image_size": options.size},
        "train": {"epochs": options.epochs},
        "eval": {"every_epochs": None},
        "checkpoint": {"every_epochs": 3},
        "monitor": {"tensorboard": False},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What marking unlabelled crowds as ignore regions brings.")
    parser.add_argument("--out", type=Path, default=Path("runs/ignore_regions"))
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--epochs", type=float, default=16)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    folder = options.out / f"{options.images}"
    write_data(folder, options.images)
    rows: dict[str, list[dict[str, Any]]] = {f"crowds {case}": [] for case in CASES}
    for seed in options.seeds:
        for case in CASES:
            config = make_config(case, folder, options)
            rows[f"crowds {case}"].append(summary_of(config, [f"name={case}_{seed}", f"seed={seed}"]))
    title = f"{options.images} synthetic scenes, half with an unlabelled crowd; {options.epochs:g} epochs at {options.size} px"
    metrics = [f"dataset/{name}/{key}" for name in reversed(SCORED) for key in ("AP", "AP50")]
    print(table(f"{title}, pedestrians, in percent.", rows, metrics))


if __name__ == "__main__":
    main()

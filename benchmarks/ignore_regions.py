"""Crowds that nobody labelled: marked as ignore regions, or left as background.

    python benchmarks/ignore_regions.py [--images 300] [--epochs 24] [--size 192] [--seeds 0 1]

Half of the synthetic aerial scenes hold a crowd of 14 people without labels, beside some people with labels. The same
budget and seeds train with the crowds marked and with the marks taken out of the files. Validation is the same for both,
its crowds marked: what is found in them is neither right nor wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from short_runs import summary_of, table

from ddptrain.data.synthetic import write_visdrone

CLASSES = ["pedestrian", "car", "bus"]
CASES = ("marked", "unmarked")


def write_data(folder: Path, images: int) -> None:
    """The same training scenes twice, with and without the rows of ignored regions; validation scenes with them."""
    if (folder / "written").exists():
        return
    for case in CASES:
        write_visdrone(folder / case, "train", range(images), seed=0)
    write_visdrone(folder / "marked", "val", range(images, images + max(images // 3, 8)), seed=0)
    for path in (folder / "unmarked").rglob("annotations/*.txt"):
        rows = path.read_text().splitlines()
        path.write_text("".join(f"{row}\n" for row in rows if row.split(",")[5] != "0"))
    (folder / "written").touch()


def make_config(case: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The run of one case."""

    def dataset(root: str, split: str) -> dict[str, Any]:
        return {"name": "scenes", "format": "visdrone", "root": str(folder / root), "split": split, "drop": ["*"]}

    return {
        "output": str(folder / "runs"),
        "classes": CLASSES,
        "data": {"train": [dataset(case, "train")], "val": [dataset("marked", "val")], "image_size": options.size},
        "train": {"epochs": options.epochs},
        "eval": {"every_epochs": None},
        "checkpoint": {"every_epochs": 3},
        "monitor": {"tensorboard": False},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What marking unlabelled crowds as ignore regions brings.")
    parser.add_argument("--out", type=Path, default=Path("runs/ignore_regions"))
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--epochs", type=float, default=24)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    folder = options.out / f"{options.images}"
    write_data(folder, options.images)
    rows = {}
    for case in CASES:
        config = make_config(case, folder, options)
        rows[f"crowds {case}"] = [summary_of(config, [f"name={case}_{seed}", f"seed={seed}"]) for seed in options.seeds]
    title = f"{options.images} synthetic scenes, half with an unlabelled crowd; {options.epochs:g} epochs at {options.size} px"
    print(table(f"{title}, AP in percent.", rows, ["AP", *(f"class/{c}/AP" for c in CLASSES)]))


if __name__ == "__main__":
    main()

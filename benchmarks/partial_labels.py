"""Two datasets that label different classes, with unknown classes masked or taken for background.

    python benchmarks/partial_labels.py [--root ../shared/data/bccd] [--epochs 50] [--batch 8] [--size 256] [--seeds 0 1]

BCCD's training images are cut into two halves; the labels of WBC are taken from the first, those of Platelets from the
second. The same budget and seeds train on both with masks (as a run does by itself), without (`annotated: all`: what is not
labelled is background) and, to see what was lost, with all labels. AP is of the last evaluation, on the test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from short_runs import summary_of, table

CLASSES = ["RBC", "WBC", "Platelets"]
HALVES = {"no_wbc": "WBC", "no_platelets": "Platelets"}
CASES: dict[str, dict[str, Any]] = {
    "half the labels, masked": {"drop": True},
    "half the labels, as background": {"drop": True, "annotated": "all"},
    "all labels": {},
}


def write_halves(root: Path, folder: Path) -> None:
    """Two VOC datasets that share the images of `root`: every other one of its trainval list."""
    names = (root / "ImageSets/Main/trainval.txt").read_text().split()
    for i, half in enumerate(HALVES):
        lists = folder / half / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / "train.txt").write_text("".join(f"{n}\n" for n in names[i::2]))
        for part in ("JPEGImages", "Annotations"):
            link = folder / half / part
            if not link.exists():
                link.symlink_to((root / part).resolve(), target_is_directory=True)


def make_config(case: str, root: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The run of one case."""
    extra = CASES[case]
    train = []
    for half, missing in HALVES.items():
        dataset: dict[str, Any] = {"name": half, "format": "voc", "root": str(folder / half), "split": "train", "share": 1}
        if extra.get("drop"):
            dataset["drop"] = [missing]
        if "annotated" in extra:
            dataset["annotated"] = extra["annotated"]
        train.append(dataset)
    return {
        "output": str(folder / "runs"),
        "classes": CLASSES,
        "data": {
            "train": train,
            "val": [{"name": "test", "format": "voc", "root": str(root), "split": "test"}],
            "image_size": options.size,
        },
        "train": {"epochs": options.epochs, "global_batch": options.batch, "micro_batch": options.batch},
        "eval": {"every_epochs": None},
        "checkpoint": {"every_epochs": 3},
        "monitor": {"tensorboard": False},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Masked or taken for background: what unknown classes cost.")
    parser.add_argument("--root", type=Path, default=Path("../shared/data/bccd"))
    parser.add_argument("--out", type=Path, default=Path("runs/partial_labels"))
    parser.add_argument("--epochs", type=float, default=50)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    write_halves(options.root, options.out)
    rows: dict[str, list[dict[str, Any]]] = {case: [] for case in CASES}
    for seed in options.seeds:
        for case in CASES:
            config = make_config(case, options.root, options.out, options)
            short = case.replace(",", "").replace(" ", "_")
            rows[case].append(summary_of(config, [f"name={short}_{seed}", f"seed={seed}"]))
    title = f"BCCD, WBC unlabelled in one half and Platelets in the other; {options.epochs:g} epochs at {options.size} px"
    print(table(f"{title}, batches of {options.batch}, AP in percent.", rows, ["AP", *(f"class/{c}/AP" for c in CLASSES)]))


if __name__ == "__main__":
    main()

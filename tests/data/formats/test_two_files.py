"""Two annotation files of one split: one is read, and the log names both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats.build import read

Save = Callable[..., Path]


def test_two_files_of_one_split_are_named_and_one_is_chosen(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "a.png")
    first, second = (tmp_path / "annotations" / name for name in ("instances_train.json", "train.json"))
    first.parent.mkdir()
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": [{"id": 1, "name": "car"}]}
    first.write_text(json.dumps(content))
    config = DetectionDataset(name="c", format="coco", root=str(tmp_path), split="train")
    assert read(config)[1].notes == []
    second.write_text(first.read_text())
    (note,) = read(config)[1].notes
    assert note == (
        f"2 JSON files of split train are in {tmp_path}: annotations/train.json, annotations/instances_train.json; the first "
        "is read; set annotations of this dataset to the right one, or remove the others"
    )
    first.write_text("{")
    assert len(read(config)[0]) == 1
    chosen = config.model_copy(update={"annotations": "annotations/train.json"})
    assert read(chosen)[1].notes == []


def test_two_csv_files_of_one_split(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "a.png")
    for name in ("train.csv", "train_labels.csv"):
        (tmp_path / name).write_text("a.png,1,2,9,9,car\n")
    config = DetectionDataset(name="c", format="csv", root=str(tmp_path), split="train")
    (note,) = read(config)[1].notes
    assert note.startswith(f"2 CSV files of split train are in {tmp_path}: train.csv, train_labels.csv; the first is read;")
    (tmp_path / "train_labels.csv").unlink()
    assert read(config)[1].notes == []

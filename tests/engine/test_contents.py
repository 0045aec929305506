"""Images and labels that are replaced between stop and resume are noticed in every task; copies and new times are not."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_runs import RUNS, write_config

from ddptrain.cli import main
from ddptrain.config import load_config
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.contents import Contents, differences
from ddptrain.data.tables.images import ImageTable
from ddptrain.tasks.build import build_task

Capture = pytest.CaptureFixture[str]


def contents(task: str, data: Path, output: Path) -> list[dict]:
    output.mkdir(exist_ok=True)
    return [c.state() for c in build_task(load_config(write_config(task, data, output))).contents]


def rewrite(path: Path, old: str, new: str) -> None:
    """Edit a text file; its time and size stay."""
    times, text = path.stat(), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def edit_mask(path: Path) -> None:
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    mask[10:14, 10:14] = 1 - mask[10:14, 10:14].clip(0, 1)
    cv2.imwrite(str(path), mask)


Edit = Callable[[Path], object]
SOCIAL = "labels/labels_2d_activity_social_stitched/hall-000.json"
EDITS: dict[str, tuple[Edit, str, Edit, str]] = {
    "detection": (
        lambda data: rewrite(data / "streets/Annotations/000001.xml", "<name>car", "<name>bus"),
        "train streets: 1 of 24 images changed (JPEGImages/000001.jpg)",
        lambda data: (data / "skyview/VisDrone2019-DET-val/annotations/000026.txt").write_text("1,1,9,9,1,4,0,0\n"),
        "val skyview: 1 of 6 images changed (VisDrone2019-DET-val/images/000026.jpg)",
    ),
    "classification": (
        lambda data: shutil.move(data / "train/disc/3.png", data / "train/square/30.png"),
        "train shapes: 1 of 27 images added (train/square/30.png), 1 of 27 images removed (train/disc/3.png)",
        lambda data: shutil.copy(data / "val/disc/0.png", data / "val/disc/1.png"),
        "val shapes: 1 of 16 images changed (val/disc/1.png)",
    ),
    "segmentation": (
        lambda data: edit_mask(data / "discs/masks/train/4.png"),
        "train discs: 1 of 10 images changed (images/train/4.png)",
        lambda data: [(data / "all" / part / "val/0.png").unlink() for part in ("images", "masks")],
        "val all: 1 of 5 images removed (images/val/0.png)",
    ),
    "interaction": (
        lambda data: rewrite(data / SOCIAL, '"inter_labels": {"sitting together"', '"inter_labels": {"walking together"'),
        "train halls: 1 of 6 images changed (images/image_stitched/hall-000/000000.jpg)",
        lambda data: cv2.imwrite(str(data / "images/image_stitched/hall-003/000015.jpg"), np.zeros((120, 960, 3), np.uint8)),
        "val halls: 1 of 4 images changed (images/image_stitched/hall-003/000015.jpg)",
    ),
}


@pytest.mark.parametrize("task", RUNS)
def test_what_was_replaced_is_reported(task: str, small_data: Callable[[str], Path], tmp_path: Path) -> None:
    before = contents(task, small_data(task), tmp_path / "a")
    # with new times, at another place
    data = shutil.copytree(small_data(task), tmp_path / "elsewhere" / "data", copy_function=shutil.copyfile)
    assert differences(before, contents(task, data, tmp_path / "b")) == {"train": [], "val": []}
    edit_train, train, edit_val, val = EDITS[task]
    edit_train(data)
    edit_val(data)
    assert differences(before, contents(task, data, tmp_path / "b")) == {"train": [train], "val": [val]}


def table(count: int, labels: list[int], pixels: np.ndarray | None = None, names: tuple[str, ...] = ("a", "b")) -> ImageTable:
    return ImageTable(
        name="t",
        root="/nowhere",
        names=names,
        paths=Paths.pack(f"/nowhere/{i}.png" for i in range(count)),
        sizes=np.ones((count, 2), np.int32),
        offsets=np.arange(count + 1),
        labels=np.array(labels, np.int32),
        pixels=pixels,
    )


def reported(before: ImageTable, after: ImageTable) -> list[str]:
    return differences([Contents("train", before).state()], [Contents("train", after).state()])["train"]


def test_images_inside_one_file_count_too() -> None:
    pixels = np.zeros((4, 3, 3), np.uint8)
    other = pixels.copy()
    other[2, 1, 1] = 1
    assert reported(table(4, [0, 1, 0, 1], pixels), table(4, [0, 1, 0, 1], other)) == ["train t: 1 of 4 images changed (2)"]


def test_classes_are_compared_by_name_and_many_images_are_counted() -> None:
    assert reported(table(4, [0, 1, 0, 1]), table(4, [1, 0, 1, 0], names=("b", "a"))) == []
    shown = "0.png, 1.png, 2.png, …"
    assert reported(table(5, [0] * 5), table(5, [1] * 5)) == [f"train t: 5 of 5 images changed ({shown})"]


def test_another_order_is_reported() -> None:
    swapped = dataclasses.replace(table(2, [0, 0]), paths=Paths.pack(["/nowhere/1.png", "/nowhere/0.png"]))
    assert reported(table(2, [0, 0]), swapped) == ["train t: the same 2 images in another order"]


def test_replaced_training_data_are_refused(small_data: Callable[[str], Path], tmp_path: Path, capsys: Capture) -> None:
    data = shutil.copytree(small_data("classification"), tmp_path / "data")
    config = str(write_config("classification", data, tmp_path))
    assert main(["train", config, "train.steps=1"]) == 0
    shutil.move(data / "train/disc/3.png", data / "train/square/30.png")
    (data / "val/disc/0.png").unlink()
    capsys.readouterr()
    again = ["train", config, "train.steps=2", "resume=auto"]
    assert main(again) == 2
    assert "cannot resume: datasets differ: train shapes: 1 of 27 images added" in capsys.readouterr().err
    assert main([*again, "resume.allow=[datasets]"]) == 0
    output = capsys.readouterr().out
    assert "train shapes: 1 of 27 images added (train/square/30.png), 1 of 27 images removed (train/disc/3.png)" in output
    assert "val shapes: 1 of 16 images removed (val/disc/0.png): metrics, and so the best checkpoint" in output


def test_evaluating_other_data_is_reported(small_data: Callable[[str], Path], tmp_path: Path, capsys: Capture) -> None:
    data = shutil.copytree(small_data("classification"), tmp_path / "data")
    config = str(write_config("classification", data, tmp_path))
    assert main(["train", config, "train.steps=1"]) == 0
    capsys.readouterr()
    evaluate = ["eval", "--json", str(tmp_path / "run")]
    assert main(evaluate) == 0
    assert "other data" not in capsys.readouterr().err
    shutil.move(data, tmp_path / "moved")
    (tmp_path / "moved/val/disc/0.png").unlink()
    moved = [f"data.{part}.0.root={tmp_path / 'moved'}" for part in ("train", "val")]
    assert main([*evaluate, *moved]) == 0
    line = (
        "val shapes: 1 of 16 images removed (val/disc/0.png): not the data of the training, so its metrics cannot be compared"
    )
    assert line in capsys.readouterr().err
    assert main([*evaluate, *moved, "data.val.0.split=train"]) == 0  # meant to be others
    assert "other data" not in capsys.readouterr().err

"""A dataset of folders whose label files hold different classes: reported folder by folder, with ways out that work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from ddptrain.cli import main
from ddptrain.config import resolve
from ddptrain.data.inspect.statistics import strangely_missed
from ddptrain.tasks.build import build_task

CLASSES = ["car", "person", "bus"]
IMAGES = 4


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDPTRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path / "set")
    return tmp_path / "set"


def folder(name: str, classes: tuple[int, ...]) -> None:
    images = Path(name)
    labels = Path(name.replace("images", "labels"))
    for where in (images, labels):
        where.mkdir(parents=True, exist_ok=True)
    for i in range(IMAGES):
        stem = f"{name.replace('/', '-')}{i}"
        assert cv2.imwrite(str(images / f"{stem}.png"), np.full((32, 32, 3), i, np.uint8))
        (labels / f"{stem}.txt").write_text("".join(f"{c} 0.5 0.5 0.4 0.4\n" for c in classes))


def warnings(train: Any, **keys: Any) -> list[str]:
    """The warnings of a run on one dataset, the `train` of a data.yaml."""
    folder("val/images", (0, 1, 2))
    Path("data.yaml").write_text(yaml.safe_dump({"train": train, "val": "val/images", "names": CLASSES}))
    d = {"name": "joint", "format": "yolo", "root": "."}
    data = {"train": [d | {"split": "train"} | keys], "val": [d | {"split": "val"}], "image_size": 32, "workers": 0}
    task = build_task(resolve({"classes": CLASSES, "data": data}))
    return [n for n in task.notes if n.startswith("warning: ")]


def test_folders_of_a_data_yaml() -> None:
    folder("a/images", (0, 1))
    folder("b/images", (1, 2))
    assert warnings(["a/images", "b/images"]) == [
        "warning: train joint: no box of bus (8 of 8 images elsewhere show it) in a/images; no box of car (8 of 8 images "
        "elsewhere show it) in b/images; if a folder shows some without a label, they are learned as background: make each "
        "folder a dataset with annotated (ddptrain config --data data.yaml writes them); if they really have none, write "
        "annotated: all (in data.train.0)"
    ]
    assert warnings(["a/images", "b/images"], annotated="all") == []
    assert main(["config", "--data", "data.yaml"]) == 0


def test_a_class_that_no_folder_shows_is_reported_of_the_dataset() -> None:
    folder("a/images", (0,))
    folder("b/images", (0, 1))
    lines = warnings(["a/images", "b/images"])
    assert [("class bus: no box of it in any training dataset" in line) for line in lines] == [True, False]
    assert "no box of person (8 of 8 images elsewhere show it) in a/images; if" in lines[1]


@pytest.mark.parametrize("absolute", [False, True])
def test_folders_of_a_list(absolute: bool, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder("a/images/s1", (0, 1, 2))
    folder("a/images/s2", (0, 2))
    folder("b/images", (0, 1))
    listed = sorted(p for f in ("a/images", "b/images") for p in Path(f).rglob("*.png"))
    Path("all.txt").write_text("".join(f"{p.absolute() if absolute else p}\n" for p in listed))
    (line,) = warnings("all.txt")
    where = os.path.join("b", "images")
    assert f"train joint: no box of bus (12 of 12 images elsewhere show it) in {where}; if" in line
    assert "make each folder a dataset with annotated and a list of images of its own; if" in line
    assert main(["config", "--data", "data.yaml"]) == 0
    assert (
        f"ddptrain: note: train all: no box of bus (8 of 8 images elsewhere show it) in {where}; what"
        in capsys.readouterr().err
    )
    for name in "ab":
        Path(f"{name}.txt").write_text("".join(f"{p}\n" for p in listed if p.parts[0] == name))
    Path("data.yaml").write_text(yaml.safe_dump({"train": ["a.txt", "b.txt"], "val": "val/images", "names": CLASSES}))
    assert main(["config", "--data", "data.yaml"]) == 0
    written = capsys.readouterr()
    assert yaml.safe_load(written.out)["data"]["train"][1]["annotated"] == ["car", "person"]
    assert "what a folder shows" not in written.err


def test_subfolders_of_one_folder_and_folders_that_agree_are_no_reason_to_warn() -> None:
    folder("a/images/s1", (0, 1, 2))
    folder("a/images/s2", (0,))
    assert warnings("a/images") == []
    folder("b/images", (0, 1, 2))
    assert warnings(["a/images", "b/images"]) == []


def test_rare_classes_that_a_small_set_lacks_are_no_reason_to_warn() -> None:
    r = np.random.default_rng(0)
    rates, of = 0.5 / np.arange(1, 81), np.full(80, 2000)
    lines = 0
    for _ in range(200):
        lines += len(strangely_missed(100, r.binomial(100, rates), r.binomial(of, rates), of)) > 0
    assert lines < 20
    elsewhere = np.round(of * rates).astype(int)
    without = np.round(100 * rates).astype(int) * (np.arange(80) >= 3)
    assert strangely_missed(100, without, elsewhere, of)[:3].tolist() == [0, 1, 2]


def test_many_folders_are_one_short_line() -> None:
    for name, classes in zip("abcdef", ((0,), (1,), (2,), (0,), (1,), (2,))):
        folder(f"{name}/images", classes)
    (line,) = warnings([f"{name}/images" for name in "abcdef"])
    assert line.count("no box of") == 3
    assert " in c/images and 3 more folders; if a folder" in line

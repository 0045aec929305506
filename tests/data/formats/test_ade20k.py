"""The full ADE20K: classes in colours, names in a pickle of which only plain data is read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ddptrain.config.segmentation import SegmentationDataset
from ddptrain.data.formats.masks import read_masks
from ddptrain.errors import UserError

OBJECTS = ["door", "wall", "building, edifice", "screen, crt", "screen, silver screen", *(f"thing {i}" for i in range(600))]
SKY = 590 + 5 + 1  # "thing 590"
SEEN = np.array([[2, 2, 3, 0], [SKY, SKY, SKY, 1]])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, kind in (("training", "urban/street"), ("validation", "indoor/room")):
        folder = tmp_path / "images/ADE" / split / kind
        folder.mkdir(parents=True)
        name = f"ADE_{split}_00000001"
        cv2.imwrite(str(folder / f"{name}.jpg"), np.zeros((*SEEN.shape, 3), np.uint8))
        instance = np.full(SEEN.shape, 7)
        coded = np.stack([SEEN // 256 * 10, SEEN % 256, instance], 2).astype(np.uint8)
        Image.fromarray(coded).save(folder / f"{name}_seg.png")
        Image.fromarray(coded).save(folder / f"{name}_parts_1.png")
        (folder / name).mkdir()
        Image.fromarray(coded[..., 1]).save(folder / name / f"instance_000_{name}.png")
        (folder / f"{name}.json").write_text("{}")
    index(tmp_path, OBJECTS)
    return tmp_path


def index(root: Path, objects: Any) -> None:
    content = {"objectnames": objects, "filename": ["a.jpg"], "objectPresence": np.zeros((3, 2)), "n": np.int64(3)}
    (root / "index_ade20k.pkl").write_bytes(pickle.dumps(content))


def read(root: Path, **keys: Any) -> Any:
    given = {"name": "d", "format": "ade20k", "root": str(root), "split": "train"} | keys
    return read_masks(SegmentationDataset.model_validate(given), folder=root / "cache")


def test_the_classes_that_are_wanted_and_void_for_the_rest(root: Path) -> None:
    for split in ("train", "val", "training"):
        table, faults = read(root, names=("building", "thing 590", "wall"), split=split)
        assert not faults.counts
        assert len(table) == 1
        assert table.names == ("building", "thing 590", "wall")
        assert table.labels(0).tolist() == [[2, 2, 0, 255], [1, 1, 1, 255]]
        assert table.pixels.tolist() == [[1, 3, 2, 2]]
        assert table.values[[0, 1, 2, SKY]].tolist() == [1, 1, 2, 3]


def test_all_names_of_a_small_index_and_those_of_the_benchmark(root: Path) -> None:
    (root / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tName\n1\t0\t1\t1\tthing 590\n2\t0\t1\t1\tbuilding, edifice\n"
    )
    assert read(root)[0].names == ("thing 590", "building")
    (root / "objectInfo150.txt").unlink()
    index(root, np.array([*OBJECTS[:5], "sky"]))
    with pytest.raises(UserError, match=rf"unknown label in a mask: {SKY} \(3 pixels\)"):
        read(root)
    index(root, np.array([*OBJECTS[:5], *(f"x{i}" for i in range(SKY - 5))]))
    with pytest.raises(UserError, match="has 596 classes, and a run can have 255; give those to learn as names"):
        read(root)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("wal",), "'wal' is not a class in index_ade20k.pkl; the nearest names there: wall"),
        (("screen",), "'screen' is the first name of several classes: screen, crt; screen, silver screen"),
    ],
)
def test_names_that_the_index_does_not_have(root: Path, names: tuple[str, ...], line: str) -> None:
    with pytest.raises(UserError, match=line):
        read(root, names=names)
    assert read(root, names=("screen, crt", "wall"))[0].names == ("screen, crt", "wall")


class _Calls:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({}), pickle.dumps([1]), pickle.dumps(_Calls())])
def test_an_index_that_is_none_or_calls_something(root: Path, content: bytes) -> None:
    (root / "index_ade20k.pkl").write_bytes(content)
    with pytest.raises(UserError, match="not an index of ADE20K with objectnames") as caught:
        read(root)
    assert "\n" not in str(caught.value)
    (root / "index_ade20k.pkl").unlink()
    with pytest.raises(UserError, match=r"no .*index_ade20k.pkl, which holds the class names"):
        read(root)


def test_a_grey_mask_in_this_layout_is_a_fault(root: Path) -> None:
    mask = next(root.glob("images/ADE/training/*/*/*_seg.png"))
    Image.fromarray(SEEN.astype(np.uint8)).save(mask)
    with pytest.raises(UserError, match="unreadable label: L; a mask of this layout codes classes in red and green"):
        read(root, names=("wall",))
    mask.unlink()
    with pytest.raises(UserError, match=r"image without label: no mask .*ADE_training_00000001_seg.png"):
        read(root, names=("wall",))

"""`holdout`: train and val of a dataset that has no splits, in every format without video, and the lines that refuse others."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ddptrain.config import resolve
from ddptrain.config.own import OwnDataset
from ddptrain.data.formats.build import read
from ddptrain.data.formats.cache import read_cached
from ddptrain.data.formats.masks import read_masks
from ddptrain.errors import UserError

STEMS = [f"{i:02}" for i in range(20)]
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
XML = f"<annotation><object><name>car</name>{BOX}</object></annotation>"
COCO = {
    "images": [{"id": i, "file_name": f"{s}.png"} for i, s in enumerate(STEMS)],
    "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 8, 8]} for i in range(20)],
    "categories": [{"id": 1, "name": "car"}],
}
FILES: dict[str, dict[str, str]] = {
    "yolo": {"data.yaml": "names: [car]", **{f"labels/{s}.txt": "0 .5 .5 .2 .2" for s in STEMS}},
    "voc": {f"Annotations/{s}.xml": XML for s in STEMS},
    "visdrone": {f"annotations/{s}.txt": "1,1,8,8,1,4,0,0" for s in STEMS},
    "csv": {"all.csv": "".join(f"{s}.png,1,1,9,9,car\n" for s in STEMS)},
    "coco": {"annotations/instances_all.json": json.dumps(COCO)},
}


def dataset(root: Path, fmt: str, **keys: object) -> OwnDataset:
    """20 images, each with one box."""
    for stem in STEMS:
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(root / "images" / f"{stem}.png")
    for name, text in FILES.get(fmt, {}).items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return OwnDataset.model_validate({"name": "d", "format": fmt, "root": str(root), "holdout": 0.25, **keys})


def of(config: OwnDataset, split: str) -> OwnDataset:
    return config.model_copy(update={"split": split})


@pytest.mark.parametrize("fmt", FILES)
def test_every_format_without_splits(tmp_path: Path, fmt: str) -> None:
    config = dataset(tmp_path, fmt)
    parts = {}
    for split, count in (("train", 15), ("val", 5)):
        table, faults = read_cached(of(config, split), folder=tmp_path / "cache", settle=0)
        assert (len(table), len(table.boxes), dict(faults.counts)) == (count, count, {})
        assert f"holdout 0.25 makes {split}: {count} of 20 images" in faults.text()
        parts[split] = {Path(table.path(i)).stem for i in range(len(table))}
    assert parts["train"] | parts["val"] == set(STEMS)
    # by name: the same in every format and on every computer
    assert sorted(parts["val"]) == ["00", "09", "14", "18", "19"]


def test_masks(tmp_path: Path) -> None:
    config = dataset(tmp_path / "a", "masks", names=("x",))
    (tmp_path / "a/masks").mkdir()
    for stem in STEMS:
        Image.new("L", (40, 30)).save(tmp_path / "a/masks" / f"{stem}.png")
    tables, faults = zip(*(read_masks(of(config, split), folder=tmp_path / "cache") for split in ("train", "val")))
    assert [len(t) for t in tables] == [15, 5]
    assert faults[1].notes == ["holdout 0.25 makes val: 5 of 20 images"]
    for folder in ("images", "masks"):
        for split in ("train", "val"):
            (tmp_path / "a" / folder / split).mkdir()
    with pytest.raises(UserError, match=r"d: holdout is for datasets without splits, but .* has train, val"):
        read_masks(of(config, "val"))
    for folder in ("images", "masks"):
        (tmp_path / "a" / folder / "val").rename(tmp_path / "a" / folder / "valid")
    with pytest.raises(UserError, match=r"d: holdout is for datasets without splits, but .* has train, valid"):
        read_masks(of(config, "val"))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"split": None}, "holdout makes the splits train and val; set split to one of them"),
        ({"split": "test"}, "holdout makes the splits train and val; set split to one of them"),
        ({"split": "val", "holdout": 0.01}, "holdout 0.01 of its 20 images leaves none for val; raise it"),
        ({"split": "train", "holdout": 0.99}, "holdout 0.99 of its 20 images leaves none for train; lower it"),
    ],
)
def test_splits_that_it_does_not_make(tmp_path: Path, keys: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(dataset(tmp_path, "csv", **keys))


def test_a_dataset_with_splits_keeps_them(tmp_path: Path) -> None:
    config = dataset(tmp_path, "voc", split="val")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/trainval.txt").write_text("\n".join(STEMS[:8]))
    assert len(read(config)[0]) == 2  # of the only list
    (tmp_path / "ImageSets/Main/test.txt").write_text("\n".join(STEMS[8:]))
    with pytest.raises(UserError, match=r"has test, trainval; remove holdout, and set split to one of them"):
        read(config)


@pytest.mark.parametrize("fmt", ["uavdt", "uavdt-xml", "visdrone-vid", "auair"])
def test_frames_of_videos_are_not_dealt_out(fmt: str) -> None:
    data = [{"name": "d", "format": fmt, "root": "r", "holdout": 0.1, "split": "train"}]
    with pytest.raises(UserError, match=r"data\.train\.0\.holdout: 0\.1 has no effect here, only a format that has no splits"):
        resolve({"classes": ["car"], "data": {"train": data, "val": data}})


def test_images_without_a_box_are_counted_the_same_way_in_every_format(tmp_path: Path) -> None:
    """An empty text file, none at all, an XML file without objects, an image without annotations."""
    empty = {
        "yolo": {"labels/00.txt": ""},
        "voc": {"Annotations/00.xml": "<annotation/>"},
        "visdrone": {"annotations/00.txt": ""},
        "csv": {"all.csv": "00.png,,,,,\n" + "".join(f"{s}.png,1,1,9,9,car\n" for s in STEMS[1:])},
        "coco": {"annotations/instances_all.json": json.dumps({**COCO, "annotations": COCO["annotations"][1:]})},
    }
    for fmt, files in empty.items():
        config = dataset(tmp_path / fmt, fmt, holdout=None)
        for name, text in files.items():
            (tmp_path / fmt / name).write_text(text)
        assert read(config)[0].counts() == "20 images, 19 boxes (1 image without a box)"

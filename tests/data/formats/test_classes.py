"""`names` are the classes that a format or a file knows, told otherwise or refused; they never shift a class by one."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddptrain.commands.convert import convert
from ddptrain.config.own import OwnDataset
from ddptrain.data.formats.build import read
from ddptrain.data.formats.labelled import read_labelled
from ddptrain.data.formats.mask_layouts import CAMVID
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.formats.visdrone import NAMES
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError

Save = Callable[..., Path]
SHIFTED = ("ignored", *NAMES[:-1])
"""11 names, as they stand in many a data.yaml for YOLO."""


def visdrone(root: Path, save_image: Save) -> dict[str, Any]:
    save_image(root / "images/a.jpg")
    (root / "annotations").mkdir()
    (root / "annotations/a.txt").write_text("1,1,20,20,1,4,0,0\n")  # 4 is car
    return {"format": "visdrone"}


def vid(root: Path, save_image: Save) -> dict[str, Any]:
    save_image(root / "images/s/0000001.jpg")
    (root / "annotations").mkdir()
    (root / "annotations/s.txt").write_text("1,0,1,1,20,20,1,4,0,0\n")
    return {"format": "visdrone-vid", "images": "images"}


def uavdt(root: Path, save_image: Save) -> dict[str, Any]:
    save_image(root / "s/img000001.jpg")
    (root / "GT").mkdir()
    (root / "GT/s_gt_whole.txt").write_text("1,1,1,1,20,20,1,1,1\n")
    return {"format": "uavdt"}


def uavdt_xml(root: Path, save_image: Save) -> dict[str, Any]:
    save_image(root / "images/s/img000001.jpg")
    (root / "Annotations/s").mkdir(parents=True)
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    (root / "Annotations/s/img000001.xml").write_text(f"<annotation><object><name>car</name>{box}</object></annotation>")
    return {"format": "uavdt-xml"}


def auair(root: Path, save_image: Save) -> dict[str, Any]:
    save_image(root / "images/a.jpg")
    box = {"top": 1, "left": 1, "width": 9, "height": 9, "class": 1}
    content = {"categories": ["Human", "Car"], "annotations": [{"image_name": "a.jpg", "bbox": [box]}]}
    (root / "annotations.json").write_text(json.dumps(content))
    return {"format": "auair"}


def coco(root: Path, save_image: Save, first: str = "dog", second: str = "car") -> dict[str, Any]:
    save_image(root / "images/a.jpg")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 9, "name": second}, {"id": 2, "name": first}],
    }
    (root / "x.json").write_text(json.dumps(content))
    return {"format": "coco", "annotations": "x.json"}


def yolo(root: Path, save_image: Save) -> dict[str, Any]:
    save_image(root / "images/a.jpg")
    (root / "labels").mkdir()
    (root / "labels/a.txt").write_text("1 .5 .5 .2 .2\n")
    (root / "data.yaml").write_text("names: [dog, car]\n")
    return {"format": "yolo"}


FORMATS: list[tuple[Callable[[Path, Save], dict[str, Any]], tuple[str, ...]]] = [
    (visdrone, NAMES),
    (vid, NAMES),
    (uavdt, ("car", "truck", "bus")),
    (uavdt_xml, ("car", "truck", "bus")),
    (auair, ("Human", "Car")),
    (coco, ("dog", "car")),
    (yolo, ("dog", "car")),
]


@pytest.mark.parametrize(("make", "own"), FORMATS)
def test_names_are_those_of_the_format(
    tmp_path: Path, save_image: Save, make: Callable[[Path, Save], dict[str, Any]], own: tuple[str, ...]
) -> None:
    layout = make(tmp_path, save_image)

    def named(*names: str) -> tuple[str, Faults]:
        table, faults = read(OwnDataset(name="d", root=str(tmp_path), names=names or None, **layout))
        return table.names[table.labels[0]], faults

    car, faults = named()
    assert car.lower() == "car"
    assert faults.text() == named(*own)[1].text() == "no faults"
    shouted, faults = named(*map(str.upper, own))
    assert (shouted, faults.text()) == ("CAR", "no faults")
    car, faults = named(*reversed(own))
    assert car.lower() == "car"  # still a car
    assert "not that of names: " + ", ".join(own) in faults.text()
    for wrong in (("ignored", *own[:-1]), ("ignored", *own), own[:-1], ("a", *own[1:])):
        with pytest.raises(UserError) as caught:
            named(*wrong)
        message = str(caught.value)
        assert f"names ({', '.join(wrong)})" in message  # both lists
        assert f"({', '.join(own)})" in message
        assert "\n" not in message


def test_convert_refuses_shifted_names(tmp_path: Path, save_image: Save) -> None:
    visdrone(tmp_path / "set", save_image)
    for names, words in ((SHIFTED, "not the classes of VisDrone-DET"), ((*NAMES, "van"), "not the classes")):
        with pytest.raises(UserError, match=words):
            convert("visdrone", "yolo", tmp_path / "set", tmp_path / "out", names=names)
    (done,) = convert("visdrone", "csv", tmp_path / "set", tmp_path / "out", names=NAMES[::-1])
    assert (tmp_path / "out/all.csv").read_text().splitlines()[1].endswith(",car")
    assert "the ids follow the order of VisDrone-DET" in done.text()


def test_mere_numbers_are_given_a_meaning(tmp_path: Path, save_image: Save) -> None:
    layout = coco(tmp_path, save_image, "0", "class_1")
    table, faults = read(OwnDataset(name="d", root=str(tmp_path), names=("dog", "car"), **layout))
    assert table.names[table.labels[0]] == "car"
    assert faults.text() == "no faults"
    with pytest.raises(UserError, match=r"names has 3 classes and .*x\.json has 2"):
        read(OwnDataset(name="d", root=str(tmp_path), names=("dog", "car", "bus"), **layout))


def test_folders_of_classes(tmp_path: Path, save_image: Save) -> None:
    for folder in ("cat", "dog"):
        save_image(tmp_path / f"train/{folder}/a.jpg")
    config = OwnDataset(name="d", format="folder", root=str(tmp_path), split="train", names=("Dog", "Cat"))
    table, faults = read_labelled(config)
    assert table.names == ("Cat", "Dog")
    assert len(faults.notes) == 1
    with pytest.raises(UserError, match=r"names \(dog, mouse\) are not the classes of .*train \(cat, dog\)"):
        read_labelled(config.model_copy(update={"names": ("dog", "mouse")}))


def test_mnist_digits(tmp_path: Path) -> None:
    pixels = struct.pack(">4B3I", 0, 0, 8, 3, 1, 2, 2) + bytes(4)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 1) + b"\1")
    config = OwnDataset(name="d", format="mnist", root=str(tmp_path), split="train", names=tuple("1234567890"))
    table, faults = read_labelled(config)
    assert table.names[table.labels[0]] == "1"
    assert len(faults.notes) == 1
    table, faults = read_labelled(config.model_copy(update={"names": ("shirt", "trousers")}))
    assert (table.names[table.labels[0]], faults.notes) == ("trousers", [])


def test_masks_of_known_classes(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "train/a.png", (4, 4))
    (tmp_path / "trainannot").mkdir()
    Image.fromarray(np.full((4, 4), 3, np.uint8)).save(tmp_path / "trainannot/a.png")
    config = OwnDataset(name="d", format="camvid", root=str(tmp_path), split="train", names=CAMVID[::-1])
    table, faults = read_masks(config, folder=tmp_path / "cache")
    assert table.names == CAMVID
    assert len(faults.notes) == 1
    for names in ((*CAMVID, "Void"), ("Void", *CAMVID), ("Void", *CAMVID[1:])):
        with pytest.raises(UserError, match="not the classes of CamVid"):
            read_masks(config.model_copy(update={"names": names}), folder=tmp_path / "cache")


def test_ade20k_without_its_list(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "images/training/a.png", (4, 4))
    (tmp_path / "annotations/training").mkdir(parents=True)
    Image.fromarray(np.full((4, 4), 1, np.uint8)).save(tmp_path / "annotations/training/a.png")
    names = ("wall", *(f"thing {i}" for i in range(149)))
    config = OwnDataset(name="d", format="ade20k", root=str(tmp_path), split="train", names=names)
    assert read_masks(config, folder=tmp_path / "cache")[0].names == names
    for shifted in (("background", *names), ("background", *names[:-1])):
        with pytest.raises(UserError, match="classes starting with background, and ADE20K has 150 starting with wall"):
            read_masks(config.model_copy(update={"names": shifted}), folder=tmp_path / "cache")
    (tmp_path / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n2\tbuilding, edifice\n")
    read_masks(config.model_copy(update={"names": ("wall", "edifice")}), folder=tmp_path / "cache")
    with pytest.raises(UserError, match=r"not the classes of objectInfo150\.txt \(wall, building\)"):
        read_masks(config.model_copy(update={"names": ("background", "wall")}), folder=tmp_path / "cache")

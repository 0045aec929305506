"""What holds for every reader: no image from outside of the root, no fractions for pixels, no box lost without a count."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddptrain.commands.convert import convert
from ddptrain.config.own import OwnDataset
from ddptrain.data.formats.build import read
from ddptrain.data.formats.jrdb import read_jrdb
from ddptrain.errors import UserError

Save = Callable[..., Path]
Numbers = tuple[float, float, float, float]


def coco(root: Path, image: str, x: float, y: float, w: float, h: float) -> None:
    content = {
        "images": [{"id": 1, "file_name": image}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [x, y, w, h]}],
        "categories": [{"id": 1, "name": "car"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations/instances_all.json").write_text(json.dumps(content))


def auair(root: Path, image: str, x: float, y: float, w: float, h: float) -> None:
    frame = {"image_name": image, "bbox": [{"left": x, "top": y, "width": w, "height": h, "class": 0}]}
    (root / "annotations.json").write_text(json.dumps({"annotations": [frame], "categories": ["car"]}))


def csv(root: Path, image: str, x: float, y: float, w: float, h: float) -> None:
    (root / "all.csv").write_text(f"{image},{x},{y},{x + w},{y + h},car\n")


def yolo(root: Path, image: str, x: float, y: float, w: float, h: float) -> None:
    (root / "list.txt").write_text(f"images/b.png\n{image}\n")
    (root / "data.yaml").write_text("names: [car]\ntrain: list.txt\n")
    (root / "labels").mkdir()
    (root / "labels/b.txt").write_text("")


def voc(root: Path, image: str, x: float, y: float, w: float, h: float) -> None:
    box = f"<bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox>"
    (root / "Annotations").mkdir()
    (root / "Annotations/a.xml").write_text(f"<annotation><object><name>car</name>{box}</object></annotation>")


def visdrone(root: Path, image: str, x: float, y: float, w: float, h: float) -> None:
    (root / "annotations").mkdir()
    (root / "annotations/a.txt").write_text(f"{x},{y},{w},{h},1,4,0,0\n")


def uavdt(root: Path, image: str, x: float, y: float, w: float, h: float) -> None:
    (root / "GT").mkdir()
    (root / "GT/s_gt_whole.txt").write_text(f"1,1,{x},{y},{w},{h},1,1,1\n")


WRITERS: dict[str, Callable[[Path, str, float, float, float, float], None]] = {
    "coco": coco, "auair": auair, "csv": csv, "yolo": yolo, "voc": voc, "visdrone": visdrone, "uavdt": uavdt,
}  # fmt: skip


def made(root: Path, save_image: Save, fmt: str, image: str = "a.png", box: Numbers = (10, 20, 30, 40)) -> OwnDataset:
    kept = {"visdrone": ["images/a.png"], "voc": ["images/a.png"], "uavdt": ["images/s/img000001.png"]}
    for path in ("../outside.png", *kept.get(fmt, ["images/a.png", "images/b.png"])):
        save_image(root / path)
    WRITERS[fmt](root, image, *box)
    split = "train" if fmt == "yolo" else None
    return OwnDataset(name="d", format=fmt, root=str(root), split=split)  # type: ignore[arg-type]


def refused(config: OwnDataset, reader: Callable[..., Any] = read) -> str:
    with pytest.raises(UserError) as caught:
        reader(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("fmt", ["coco", "auair", "csv", "yolo"])
def test_an_image_outside_of_the_root(tmp_path: Path, save_image: Save, fmt: str, absolute: bool) -> None:
    outside = str(tmp_path / "outside.png") if absolute else "../../outside.png" if fmt != "yolo" else "../outside.png"
    config = made(tmp_path / "set", save_image, fmt, outside)
    message = refused(config)
    assert "image outside root: " in message
    assert f"is not below {tmp_path}/set/; set root to a folder that holds all images" in message
    if fmt != "yolo":
        with pytest.raises(UserError, match="empty dataset"):
            read(config, "drop")
    # inside of the root an absolute name is as good as any other
    (tmp_path / "other").mkdir()
    inside = made(tmp_path / "other/set", save_image, fmt, str(tmp_path / "other/set/images/a.png"))
    assert len(read(inside)[0]) >= 1
    # also where the root is given by a link
    (tmp_path / "link").symlink_to("other/set")
    assert len(read(inside.model_copy(update={"root": str(tmp_path / "link")}))[0]) >= 1


def test_a_frame_outside_of_the_root(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "outside.png")
    save_image(tmp_path / "set/images/image_stitched/s/0.png")
    (tmp_path / "set/labels_2d_stitched").mkdir()
    person = {"label_id": "pedestrian:1", "box": [1, 2, 30, 40]}
    content = {"labels": {"0.png": [person], "../../../../outside.png": [person], "deep/1.png": [person]}}
    (tmp_path / "set/labels_2d_stitched/s.json").write_text(json.dumps(content))
    save_image(tmp_path / "set/images/image_stitched/s/deep/1.png")
    config = OwnDataset(name="d", format="jrdb", root=str(tmp_path / "set"))
    assert "s.json: image outside root: " in refused(config, read_jrdb)
    table, faults = read_jrdb(config, "drop")
    assert dict(faults.counts) == {"image outside root": 1, "box of an image left out": 1}
    assert (len(table), len(table.boxes), table.sequences) == (2, 2, ("s",))


@pytest.mark.parametrize("fmt", ["coco", "auair", "csv", "voc", "visdrone", "uavdt"])
def test_fractions_where_pixels_are_due(tmp_path: Path, save_image: Save, fmt: str) -> None:
    assert ": box in fractions: must be in pixels: 0.25 0.125 0.75 0.625" in refused(
        made(tmp_path / "set", save_image, fmt, box=(0.25, 0.125, 0.5, 0.5))
    )
    # a corner of an object that was cut off
    table, _ = read(made(tmp_path / "cut", save_image, fmt, box=(0, 0, 0.75, 0.5)))
    assert len(table.boxes) == 1


@pytest.mark.parametrize("fmt", ["coco", "auair", "csv", "voc", "visdrone", "uavdt"])
def test_the_boxes_of_an_image_left_out_are_counted(tmp_path: Path, save_image: Save, fmt: str) -> None:
    config = made(tmp_path / "set", save_image, fmt)
    broken = tmp_path / "set/images" / ("s/img000001.png" if fmt == "uavdt" else "a.png")
    broken.write_bytes(b"")
    message = refused(config)
    assert "unreadable image" in message
    assert "also 1 box of an image left out" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class": "0"}, "malformed row: class is '0'; must be an integer"),
        ({"class": True}, "malformed row: class is True"),
        ({"class": 10**30}, "unknown class: class 1000"),
        ({"left": "10"}, "malformed row: left is '10'; must be a finite number"),
        ({"left": float("nan")}, "non-finite number: left is nan"),
        ({"left": [10]}, "malformed row: left is [10]"),
    ],
)
def test_fields_of_auair(tmp_path: Path, save_image: Save, change: dict[str, Any], words: str) -> None:
    config = made(tmp_path / "set", save_image, "auair")
    file = tmp_path / "set/annotations.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"].append({**content["annotations"][0]["bbox"][0], **change})
    content["annotations"].append({"image_name": 3, "bbox": [1, 2]})
    file.write_text(json.dumps(content))
    message = refused(config)
    assert f"annotations[0].bbox[1]: {words}" in message or "annotations[1]: malformed row: image_name is 3" in message
    table, faults = read(config, "drop")
    assert len(table.boxes) == 1
    assert faults.counts["box of an image left out"] == 2
    assert any(f"annotations[0].bbox[1]: {words}" in str(f) for f in faults.kept)


def test_entries_of_one_frame_keep_all_boxes(tmp_path: Path, save_image: Save) -> None:
    config = made(tmp_path / "set", save_image, "auair")
    file = tmp_path / "set/annotations.json"
    content = json.loads(file.read_text())
    other = {"image_name": "./a.png", "bbox": [{"left": 1, "top": 2, "width": 3, "height": 4, "class": 0}]}
    file.write_text(json.dumps({**content, "annotations": [*content["annotations"], other]}))
    assert "annotations[1]: repeated entry of an image" in refused(config)
    assert len(read(config, "drop")[0].boxes) == 2


@pytest.mark.parametrize("row", ["10,20,30,40,0.87,4,0,0", "10,20,30,40,1_0,4,0,0", "10,20,30,40,1,4.0,0,0"])
def test_a_row_of_a_detector_is_not_a_label(tmp_path: Path, save_image: Save, row: str) -> None:
    config = made(tmp_path / "set", save_image, "visdrone")
    (tmp_path / "set/annotations/a.txt").write_text(f"10,20,30,40,1,4,0,0\n{row}\n")
    assert f"a.txt:2: malformed row: {row}: " in refused(config)


def test_absolute_beside_relative_names_are_converted(
    tmp_path: Path, save_image: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of a folder beside the root, and of one that is named from the top of the file system."""
    for path in ("set/images/a.png", "far/images/b.png"):
        save_image(tmp_path / path)
    (tmp_path / "set/classes.txt").write_text("car\n")
    for folder, stem in (("set", "a"), ("far", "b")):
        (tmp_path / folder / "labels").mkdir()
        (tmp_path / folder / f"labels/{stem}.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "set/data.yaml").write_text(f"names: [car]\ntrain: [images, {tmp_path}/far/images]\n")
    monkeypatch.chdir(tmp_path)
    (done,) = convert("yolo", "csv", "set", "out")
    assert (done.images, done.boxes) == (2, 2)
    assert len((tmp_path / "out/train.csv").read_text().splitlines()) == 3

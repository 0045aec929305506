"""VisDrone-VID, UAVDT in both forms, AU-AIR and CSV: real bytes, layouts and faults."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats.build import read
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.errors import UserError

Save = Callable[..., Path]


def refused(config: DetectionDataset, on_fault: str = "error") -> str:
    with pytest.raises(UserError) as caught:
        read(config, on_fault)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sizes(tables: list[AnnotationTable]) -> list[int]:
    sides = np.concatenate([t.boxes[~t.ignore, 2:] - t.boxes[~t.ignore, :2] for t in tables]).astype(float)
    return np.bincount(np.digitize(sides.prod(1), [32**2, 96**2]), minlength=3).tolist()


def test_visdrone_vid(data_root: Path) -> None:
    root = str(data_root / "visdrone_native")
    config = DetectionDataset(name="v", format="visdrone-vid", root=root, split="train")
    table, faults = read(config, "drop")
    assert (len(table), len(table.boxes)) == (12, 432)
    assert dict(faults.counts) == {"label without image": 464 - 12, "box of an image left out": 23_445}
    counts = np.bincount(table.labels, minlength=11)
    assert counts[[0, 1, 9]].tolist() == [288, 120, 24]
    # 12 frames of the same objects: no row of a neighbour frame was taken for one of this frame
    assert np.diff(table.offsets).tolist() == [36] * 12
    message = refused(config)
    assert "uav0000086_00000_v.txt:1: label without image: frame 102" in message
    assert "452 labels without images" in message
    assert "splits in" in refused(config.model_copy(update={"split": "val"}))
    assert "VID" not in refused(config.model_copy(update={"format": "visdrone", "split": "val"}))


def vid_set(root: Path, save_image: Save, text: str) -> DetectionDataset:
    (root / "annotations").mkdir()
    (root / "annotations/s1.txt").write_text(text)
    for frame in (1, 2):
        save_image(root / f"sequences/s1/{frame:07d}.jpg")
    return DetectionDataset(name="v", format="visdrone-vid", root=str(root))


def test_frames_without_rows_are_background(tmp_path: Path, save_image: Save) -> None:
    table = read(vid_set(tmp_path, save_image, "2,0,1,2,10,20,1,4,0,0\r\n2,1,1,2,3,4,0,0,0,0,\r\n"))[0]
    assert table.offsets.tolist() == [0, 0, 2]
    assert table.labels.tolist() == [3, -1]
    assert table.ignore.tolist() == [False, True]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1,0,1,2,10,20,1,4,0", "s1.txt:1: malformed row"),
        ("x,0,1,2,10,20,1,4,0,0", "s1.txt:1: malformed row"),
        ("1,0,1,2,10,nan,1,4,0,0", "s1.txt:1: non-finite number"),
        ("1,0,1,2,10,20,1,14,0,0", "s1.txt:1: unknown class"),
        ("3,0,1,2,10,20,1,4,0,0", "s1.txt:1: label without image: frame 3"),
    ],
)
def test_vid_faults(tmp_path: Path, save_image: Save, row: str, words: str) -> None:
    assert words in refused(vid_set(tmp_path, save_image, row))


def test_an_image_that_is_not_a_frame_is_reported(tmp_path: Path, save_image: Save) -> None:
    config = vid_set(tmp_path, save_image, "2,0,1,2,10,20,1,4,0,0\n")
    save_image(tmp_path / "sequences/s1/cover.jpg")
    table, faults = read(config)
    assert len(table) == 2
    assert faults.text() == f"no faults; 1 image without labels was left out, for example {tmp_path}/sequences/s1/cover.jpg"


def test_two_images_of_a_frame(tmp_path: Path, save_image: Save) -> None:
    config = vid_set(tmp_path, save_image, "2,0,1,2,10,20,1,4,0,0\n")
    save_image(tmp_path / "sequences/s1/2.jpg")
    message = refused(config)
    assert "sequences/s1/2.jpg: second image of a frame: " in message
    assert "0000002.jpg is also frame 2; in total: 1 second image of a frame" in message
    table, _ = read(config, "drop")
    assert [Path(table.path(i)).name for i in range(len(table))] == ["0000001.jpg", "0000002.jpg"]


def test_a_sequence_without_annotations(tmp_path: Path, save_image: Save) -> None:
    config = vid_set(tmp_path, save_image, "1,0,1,2,10,20,1,4,0,0\n")
    save_image(tmp_path / "sequences/s2/0000001.jpg")
    assert "image without label: no file of s2" in refused(config)


# UAVDT


@pytest.fixture
def uavdt(tmp_path: Path, data_root: Path, save_image: Save) -> DetectionDataset:
    """The real annotations of three sequences, with pictures of the right size and number behind them."""
    shutil.copytree(data_root / "uavdt_gt/GT", tmp_path / "GT")
    picture = save_image(tmp_path / "picture.png", (1024, 540))
    for name, frames in (("M0207", 571), ("M0208", 265), ("M0301", 347)):
        (tmp_path / name).mkdir()
        for frame in range(1, frames + 1):
            (tmp_path / name / f"img{frame:06d}.png").symlink_to(picture)
    return DetectionDataset(name="u", format="uavdt", root=str(tmp_path))


def test_uavdt(uavdt: DetectionDataset) -> None:
    table = read(uavdt)[0]
    assert len(table) == 571 + 265 + 347
    assert int((~table.ignore).sum()) == 3481
    assert np.bincount(table.labels[table.labels >= 0]).tolist() == [2849, 61, 571]
    assert int((table.labels < 0).sum()) == 265 + 347
    assert sizes([table]) == [2383, 618, 480]
    # frame 161 of M0207 has its first box at (0, 243)
    first = next(i for i in range(len(table)) if table.path(i).endswith("M0207/img000161.png"))
    assert table.boxes[table.rows(first)][0].tolist() == [0, 243, 38, 284]


def test_uavdt_splits_by_sequence(uavdt: DetectionDataset) -> None:
    root = Path(uavdt.root)
    for split, names in (("train", ["M0207", "M0301"]), ("test", ["M0208"])):
        for name in names:
            (root / "M_attr" / split).mkdir(parents=True, exist_ok=True)
            (root / "M_attr" / split / f"{name}_attr.txt").write_text("1,0,0\n")
    assert "splits in" in refused(uavdt)
    assert len(read(uavdt.model_copy(update={"split": "train"}))[0]) == 571 + 347
    assert len(read(uavdt.model_copy(update={"split": "test"}))[0]) == 265
    (root / "mine.txt").write_text("M0208\nM0301\n")
    (root / "SOURCE.txt").write_text("somewhere\n")
    assert len(read(uavdt.model_copy(update={"split": "mine"}))[0]) == 265 + 347
    message = refused(uavdt.model_copy(update={"split": "val"}))
    assert message.endswith("mine, test, train; set split to one of them")


def test_uavdt_faults(uavdt: DetectionDataset) -> None:
    root = Path(uavdt.root)
    (root / "GT/M0208_gt_whole.txt").write_text("1,1,5,5,10,10,1,1,4\n")
    assert "M0208_gt_whole.txt:1: unknown class: category 4" in refused(uavdt)
    (root / "GT/M0208_gt_whole.txt").write_text("1,1,5,5,10\n")
    assert "M0208_gt_whole.txt:1: malformed row" in refused(uavdt)
    (root / "GT/M0208_gt_whole.txt").write_text("")
    (root / "GT/M0208_gt_ignore.txt").unlink()
    assert len(read(uavdt)[0]) == 571 + 265 + 347
    shutil.rmtree(root / "M0208")
    assert len(read(uavdt)[0]) == 571 + 347
    (root / "GT/M0208_gt_whole.txt").write_text("1,1,5,5,10,10,1,1,1\n")
    assert "label without image: frame 1" in refused(uavdt)
    (root / "list.txt").write_text("M0207\nM0999\n")
    assert "image without label" in refused(uavdt.model_copy(update={"split": "list"}))


@pytest.mark.parametrize("layout", ["{sequence}/img{frame:06d}", "{sequence}_img{frame:06d}"])
def test_uavdt_xml(tmp_path: Path, save_image: Save, voc_object: Callable[..., str], layout: str) -> None:
    for sequence, frame, body in (
        ("M0101", 1, voc_object("car", 1, 2, 30, 40)),
        ("M0101", 2, ""),
        ("M0203", 1, voc_object("bus", 1, 2, 30, 40) + voc_object("truck", 1, 2, 30, 40)),
    ):
        stem = layout.format(sequence=sequence, frame=frame)
        save_image(tmp_path / "images" / f"{stem}.jpg")
        path = tmp_path / "Annotations" / f"{stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<annotation>\n{body}</annotation>")
    config = DetectionDataset(name="u", format="uavdt-xml", root=str(tmp_path))
    table = read(config)[0]
    assert table.names == ("car", "truck", "bus")
    assert table.offsets.tolist() == [0, 1, 1, 3]
    assert table.labels.tolist() == [0, 2, 1]
    (tmp_path / "val.txt").write_text("M0203\n")
    assert len(read(config.model_copy(update={"split": "val"}))[0]) == 1
    (tmp_path / "Annotations" / (layout.format(sequence="M0203", frame=1) + ".xml")).write_text(
        f"<annotation>\n{voc_object('dog', 1, 2, 3, 4)}</annotation>"
    )
    assert ".xml:2: unknown class: 'dog'" in refused(config.model_copy(update={"split": "val"}))


# AU-AIR


def test_auair(data_root: Path) -> None:
    table, faults = read(DetectionDataset(name="a", format="auair", root=str(data_root / "auair_subset")))
    assert (len(table), len(table.boxes)) == (80, 335)
    assert sizes([table]) == [30, 160, 145]
    assert table.names == ("Human", "Car", "Truck", "Van", "Motorbike", "Bicycle", "Bus", "Trailer")
    assert len(np.unique(table.labels)) == 7
    assert faults.text() == "no faults"


def auair_set(root: Path, save_image: Save, *boxes: object, **size: float) -> DetectionDataset:
    for name in ("a", "b"):
        save_image(root / "images" / f"{name}.jpg")
    entries = [{"image_name": "a.jpg", "bbox": list(boxes), **size}, {"image_name": "b.jpg", "bbox": []}]
    (root / "annotations.json").write_text(json.dumps({"categories": ["Human", "Car"], "annotations": entries}))
    return DetectionDataset(name="a", format="auair", root=str(root))


BOX = {"top": 1, "left": 2, "height": 30, "width": 40, "class": 1}


def test_auair_split_is_a_list_of_images(tmp_path: Path, save_image: Save) -> None:
    config = auair_set(tmp_path, save_image, BOX, **{"image_width:": 100.0, "image_height:": 80.0})
    table = read(config)[0]
    assert table.boxes.tolist() == [[2, 1, 42, 31]]
    assert len(table) == 2
    (tmp_path / "val.txt").write_text("b.jpg\n")
    assert len(read(config.model_copy(update={"split": "val"}))[0].boxes) == 0
    assert "splits in" in refused(config.model_copy(update={"split": "test"}))
    (tmp_path / "val.txt").write_text("b.jpg\nc.jpg\n")
    assert "c.jpg: image without label" in refused(config.model_copy(update={"split": "val"}))


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ({**BOX, "class": 2}, "annotations[0].bbox[1]: unknown class"),
        ({**BOX, "top": "x"}, "annotations[0].bbox[1]: malformed row"),
        ({"top": 1}, "annotations[0].bbox[1]: malformed row"),
        ({**BOX, "width": 500}, "annotations[0].bbox[1]: box outside image"),
    ],
)
def test_auair_faults(tmp_path: Path, save_image: Save, box: object, words: str) -> None:
    assert words in refused(auair_set(tmp_path, save_image, BOX, box))


def test_auair_claims(tmp_path: Path, save_image: Save) -> None:
    config = auair_set(tmp_path, save_image, BOX, image_width=200, image_height=80)
    assert "annotations[0]: size mismatch: 200×80" in refused(config)
    (tmp_path / "annotations.json").write_text('{"categories": [], "annotations": [{}]}')
    assert "annotations[0]: malformed row: has no image_name" in refused(config)


# CSV


def test_wind_turbines(data_root: Path) -> None:
    config = DetectionDataset(name="w", format="csv", root=str(data_root / "wind_turbines"), split="train")
    tables = [read(config.model_copy(update={"split": s}))[0] for s in ("train", "test")]
    assert [len(t) for t in tables] == [392, 80]
    assert sum(len(t.boxes) for t in tables) == 476
    assert sizes(tables) == [9, 467, 0]
    assert tables[0].names == ("wind turbine",)
    message = refused(config.model_copy(update={"split": None}))
    assert message.endswith("test, train; set split to one of them")


def csv_set(root: Path, save_image: Save, text: str) -> DetectionDataset:
    for name in ("a", "b"):
        save_image(root / "images" / f"{name}.jpg")
    (root / "train.csv").write_text(text)
    return DetectionDataset(name="c", format="csv", root=str(root), split="train")


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,1,2,30,40,bus\nb.jpg,,,,,\na.jpg,5,6,7,8,car\n",
        "a.jpg,1,2,30,40,bus,0.5\r\nb.jpg,,,,,\r\n\r\na.jpg,5,6,7,8,car\r\n",
        "\ufefflabel,ymax,xmax,ymin,xmin,Image_Name\nbus,40,30,2,1,a.jpg\n,,,,,b.jpg\ncar,8,7,6,5,a.jpg\n",
    ],
)
def test_csv_columns(tmp_path: Path, save_image: Save, text: str) -> None:
    table = read(csv_set(tmp_path, save_image, text))[0]
    assert table.names == ("bus", "car")
    assert table.boxes.tolist() == [[1, 2, 30, 40], [5, 6, 7, 8]]
    assert table.labels.tolist() == [0, 1]
    assert table.offsets.tolist() == [0, 2, 2]


def test_classes_of_all_files(tmp_path: Path, save_image: Save) -> None:
    config = csv_set(tmp_path, save_image, "a.jpg,1,2,30,40,bus\n")
    (tmp_path / "val.csv").write_text("b.jpg,1,2,30,40,ambulance\n")
    assert read(config)[0].names == ("ambulance", "bus")
    assert read(config.model_copy(update={"annotations": "train.csv"}))[0].names == ("bus",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.jpg,1,2,x,40,bus\n", "train.csv:1: malformed row"),
        ("a.jpg,1,2,30,40,bus\na.jpg,1,2\n", "train.csv:2: malformed row: 3 fields"),
        (",1,2,3,4,bus\n", "train.csv:1: malformed row: no path"),
        ("a.jpg,1,2,3,4,\n", "train.csv:1: unknown class"),
        ("c.jpg,1,2,3,4,bus\n", "train.csv:1: missing image"),
        ("path,x1,y1,x2,label\n", "no column y2 in the header path, x1, y1, x2, label; it may be called y2, ymax"),
        ("", "empty dataset"),
    ],
)
def test_csv_faults(tmp_path: Path, save_image: Save, text: str, words: str) -> None:
    assert words in refused(csv_set(tmp_path, save_image, text))

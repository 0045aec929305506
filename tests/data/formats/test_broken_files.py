"""Files that are not what their name says end in one line, whatever the format."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ddptrain.config.classification import ClassificationDataset
from ddptrain.config.detection import DetectionDataset
from ddptrain.config.own import OwnDataset
from ddptrain.data.formats.build import read
from ddptrain.data.formats.labelled import read_labelled
from ddptrain.errors import UserError

LATIN = "bücher\n".encode("latin-1")
OBJECT = (
    b"<object><name>car</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"
)
BOX = '{"top": 1, "left": 1, "width": 5, "height": 5, "class": 1e999}'
ENDLESS = f'{{"annotations": [{{"image_name": "a.jpg", "bbox": [{BOX}]}}], "categories": ["a"]}}'.encode()


@pytest.mark.parametrize(
    ("fmt", "split", "files", "words"),
    [
        ("csv", "train", {"train.csv": b"a.jpg,1,2,30,40,b\xfcs\n"}, "train.csv is not a CSV in UTF-8"),
        ("csv", "train", {"train.csv": b"a.jpg,1,2,30,40," + b"x" * 200_000}, "train.csv is not a CSV in UTF-8"),
        ("csv", "train", {"train.csv": "a.jpg,1,2,30,40,bus".encode("utf-16")}, "train.csv is not a CSV in UTF-8"),
        ("yolo", None, {"labels/a.txt": b"0 .5 .5 .2 .2", "classes.txt": LATIN}, "classes.txt is not text in UTF-8"),
        ("voc", "train", {"ImageSets/Main/train.txt": LATIN, "Annotations/a.xml": b"<a/>"}, "train.txt is not text in UTF-8"),
        ("uavdt", "train", {"GT/s_gt_whole.txt": b"", "train.txt": LATIN}, "train.txt is not text in UTF-8"),
        (
            "coco",
            "train",
            {"annotations/train.json": b'{"images": [], "annotations": null, "categories": []}'},
            "'annotations'",
        ),
        ("coco", "train", {"annotations/train.json": b'{"images": [1], "annotations": [], "categories": []}'}, "malformed"),
        ("auair", None, {"annotations.json": b'{"annotations": null, "categories": null}'}, "no list 'annotations'"),
        ("auair", None, {"annotations.json": ENDLESS}, "annotations[0].bbox[0]: malformed row"),
    ],
)
def test_one_line(
    tmp_path: Path, save_image: Callable[..., Path], fmt: str, split: str | None, files: dict[str, bytes], words: str
) -> None:
    save_image(tmp_path / "images/a.jpg")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(OwnDataset(name="d", format=fmt, root=str(tmp_path), split=split))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fmt", "files"),
    [
        ("visdrone", {"annotations/a.txt": b"\xef\xbb\xbf1,1,4,4,1,4,0,0,\r\n"}),
        ("yolo", {"labels/a.txt": b"\xef\xbb\xbf0 .5 .5 .2 .2\r\n", "classes.txt": b"\xef\xbb\xbfcar\r\n"}),
        ("csv", {"all.csv": b"\xef\xbb\xbfa.jpg,1,1,5,5,car\r\n"}),
        ("voc", {"Annotations/a.xml": b"<annotation><size><width>inf</width><height>1</height></size>" + OBJECT}),
    ],
)
def test_harmless_oddities(tmp_path: Path, save_image: Callable[..., Path], fmt: str, files: dict[str, bytes]) -> None:
    """A mark of the byte order that editors of Windows write; a size that claims nothing."""
    save_image(tmp_path / "images/a.jpg")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    table, faults = read(OwnDataset(name="d", format=fmt, root=str(tmp_path)))
    assert len(table.boxes) == 1
    assert table.names[table.labels[0]] == "car"
    assert faults.text() == "no faults"


@pytest.mark.parametrize("fmt", ["yolo", "visdrone", "uavdt"])
def test_a_dangling_link_is_an_unreadable_label(tmp_path: Path, save_image: Callable[..., Path], fmt: str) -> None:
    """Its image is left out, rather than learned as background."""
    images, labels, row = {
        "yolo": ("images/{}.png", "labels/{}.txt", "0 .5 .5 .2 .2"),
        "visdrone": ("images/{}.png", "annotations/{}.txt", "1,1,8,8,1,4,0,0"),
        "uavdt": ("{}/img000001.png", "GT/{}_gt_whole.txt", "1,1,1,1,10,10,1,1,1"),
    }[fmt]
    (tmp_path / labels).parent.mkdir()
    for stem in ("a", "b"):
        save_image(tmp_path / images.format(stem))
    (tmp_path / labels.format("a")).write_text(row)
    (tmp_path / labels.format("b")).symlink_to("/nowhere")
    names = ("car",) if fmt == "yolo" else None
    table, faults = read(DetectionDataset(name="d", format=fmt, root=str(tmp_path), names=names), "drop")
    assert [str(Path(p).relative_to(tmp_path)) for p in table.paths] == [images.format("a")]
    assert dict(faults.counts) == {"unreadable label": 1}


def test_a_dangling_csv(tmp_path: Path) -> None:
    (tmp_path / "train.csv").symlink_to("/nowhere")
    with pytest.raises(UserError, match=r"train\.csv: cannot be read: No such file or directory"):
        read(DetectionDataset(name="d", format="csv", root=str(tmp_path), split="train"))


def test_a_gzipped_idx_file_with_a_damaged_body(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(struct.pack(">4I", 0x803, 20, 28, 28) + bytes(20 * 28 * 28)))
    for place in (14, 15, 20):
        data[place] ^= 0xFF
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(data)
    config = ClassificationDataset.model_validate({"name": "d", "format": "mnist", "root": str(tmp_path), "split": "train"})
    with pytest.raises(UserError, match="is not an idx file of 3 dimensions, or cut short"):
        read_labelled(config)

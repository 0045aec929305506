"""Files that are not what their name says end in one line, whatever the format."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ddptrain.config.own import OwnDataset
from ddptrain.data.formats.build import read
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

"""CSV files as people have them: separators, headers, decimal commas, and cells that a spreadsheet would run."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from ddptrain.commands.convert import convert
from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats.build import read
from ddptrain.data.formats.labelled import read_labelled
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError
from ddptrain.reporting.history import History
from ddptrain.system.printable import guarded, unguarded

Save = Callable[..., Path]


@pytest.fixture
def csv_set(tmp_path: Path, save_image: Save) -> Callable[..., DetectionDataset]:
    """Writes a CSV beside an image a.jpg of 100×80 pixels."""
    save_image(tmp_path / "a.jpg")

    def make(text: str | bytes, **config: object) -> DetectionDataset:
        (tmp_path / "train.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return DetectionDataset(**{"name": "c", "format": "csv", "root": str(tmp_path), "split": "train", **config})

    return make


def refused(config: DetectionDataset, reader: Callable[[DetectionDataset], tuple[object, Faults]] = read) -> str:
    with pytest.raises(UserError) as caught:
        reader(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg;10;20.5;30;40;car\n",
        "a.jpg\t10\t20.5\t30\t40\tcar\r\n",
        "\ufefffilename;xmin;ymin;xmax;ymax;class\na.jpg;10;20.5;30;40;car\n",
        "path\tclass\tleft\ttop\twidth\theight\na.jpg\tcar\t10\t20.5\t20\t19.5\n",
        "File Name,X Min,Y-Min,W,H,Label\na.jpg,10,20.5,20,19.5,car\n",
        "image,cx,cy,width,height,class\na.jpg,20,30.25,20,19.5,car\n",
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,100,80,car,10,20.5,30,40\n",  # width and height of the image
        "filename,x1,y1,x2,y2,width,height,class\na.jpg,10,20.5,30,40,20,20,car\n",  # and of the box
        "a.jpg,10,20.5,30,40,car\n./a.jpg,10,20.5,30,40,car\n",
        ".\\a.jpg,10,20.5,30,40,car\n",
        "sep=;\r\na.jpg;10;20.5;30;40;car\r\n",
    ],
)
def test_one_table_in_many_spellings(csv_set: Callable[..., DetectionDataset], text: str) -> None:
    table, _ = read(csv_set(text))
    assert table.boxes.tolist() == [[10, 20.5, 30, 40]]
    assert table.names == ("car",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,x,y,width,height,class\na.jpg,1,2,3,4,car\n", "train.csv:1: x and y in the header path, x, y, width,"),
        ("path;x1;y1;x2;y2;class\na.jpg;1,5;2;30;40;car\n", "train.csv:2: malformed row: 1,5 has a decimal comma; write 1.5"),
        ("a.jpg;1,5;2,5;30,5;40,5;car\n", "train.csv:1: malformed row: 1,5 has a decimal comma"),
        ("a.jpg,1,5,2,30,40,car\n", "train.csv:1: malformed row: 7 fields; a row must have 6"),
        ("path,x1,y1,x2,y2,class\na.jpg,1,2,3,4,car,5\n", "train.csv:2: malformed row: 7 fields; a row must have 6"),
        ("a.jpg,1_0,2,30,40,car\n", "train.csv:1: malformed row: '1_0' is not a number"),
        ("path,x1,y1,x2,y2,class,x1\n", "train.csv:1: column x1 is listed twice"),
        ("a.jpg|1|2|30|40|car\n", "no column path in the header a.jpg|1|2|30|40|car; it may be called path, "),
        ("a.jpg 1 2 30 40 car\n", "img; fields must be separated by commas, semicolons or tabs"),
        ("filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,640,480,car,1,2,30,40\n", "size mismatch: 640×480 where "),
        ("path,left,top,w,h,class,image_width,image_height\na.jpg,1,2,30,40,car,50,40\n", "size mismatch: 50×40 where "),
        ("id,where,what\na.jpg,1,2\n", "train.csv:1: no column path in the header id, where, what; it may be called"),
        ('"a.jpg,1,2,3,4,car\na.jpg,1,2,3,4,car\n', "train.csv:2: a quote is not closed on its line"),
        ("a.jpg,0.1,0.2,0.5,0.9,car\n", "train.csv:1: box in fractions: must be in pixels: 0.1 0.2 0.5 0.9"),
        ("../a.jpg,1,2,30,40,car\n", "train.csv:1: image outside root: "),
        ("/etc/a.jpg,1,2,30,40,car\n", "train.csv:1: image outside root: /etc/a.jpg is not below "),
        ("a.jpg,1,2,30,40,car".encode("utf-16"), "train.csv is not a CSV in UTF-8"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong(csv_set: Callable[..., DetectionDataset], text: str | bytes, words: str) -> None:
    assert words in refused(csv_set(text))


def test_two_columns_that_may_be_the_path_are_reported(csv_set: Callable[..., DetectionDataset]) -> None:
    _, faults = read(csv_set("image,filename,x1,y1,x2,y2,class\nb.jpg,a.jpg,1,2,30,40,car\n"))
    assert "of the columns filename, image the first is taken" in faults.text()


def test_labels_of_whole_images(csv_set: Callable[..., DetectionDataset]) -> None:
    for text in ("a.jpg;cat\n", "label\tpath\ncat\ta.jpg\n", "a.jpg,cat\n./a.jpg,cat\n"):
        table, _ = read_labelled(csv_set(text))
        assert (table.names, table.labels.tolist()) == (("cat",), [0])
    assert "train.csv:1: no column path" in refused(csv_set("id,label\na,cat\n"), read_labelled)
    assert "train.csv:1: malformed row: a.jpg,cat,dog" in refused(csv_set("a.jpg,cat,dog\n"), read_labelled)
    for outside in ("../a.jpg", "/etc/a.jpg"):
        assert "train.csv:1: image outside root" in refused(csv_set(f"{outside},cat\n"), read_labelled)
        held_out = csv_set(f"{outside},cat\na.jpg,cat\n", holdout=0.5)
        assert "train.csv:1: image outside root" in refused(held_out, read_labelled)


@pytest.mark.parametrize("name", ["=1+1", "+car", "-car", "@car", "'=car", "car", "'car", "a=b", "\tcar"])
def test_cells_that_a_spreadsheet_would_run(name: str) -> None:
    assert unguarded(guarded(name)) == name
    assert guarded(name)[0] not in "=+-@\t"


def test_converted_names_are_not_formulas(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "set/images/=a.jpg")
    (tmp_path / "set/labels").mkdir()
    (tmp_path / "set/labels/=a.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "set/data.yaml").write_text("names: ['=HYPERLINK(\"x\")']\n")
    (done,) = convert("yolo", "csv", tmp_path / "set", tmp_path / "out")
    assert "2 names written with ' in front" in done.text()
    with (tmp_path / "out/all.csv").open() as file:
        assert [r[0][0] + r[5][0] for r in csv.reader(file)][1:] == ["''"]
    table: AnnotationTable = read(DetectionDataset(name="c", format="csv", root=str(tmp_path / "out")))[0]
    assert table.names == ('=HYPERLINK("x")',)
    assert table.path(0).endswith("/=a.jpg")


def test_history_holds_no_formulas(tmp_path: Path) -> None:
    History(tmp_path / "history.csv", None).append({"step": 1, "=cmd": 0.5})
    assert "'=cmd" in (tmp_path / "history.csv").read_text()
    assert History(tmp_path / "history.csv", 1).table == {"step": [1.0], "=cmd": [0.5]}


def test_the_files_of_an_export(tmp_path: Path, save_image: Save) -> None:
    for split in ("train", "valid"):
        save_image(tmp_path / f"set/{split}/{split}.jpg")
        (tmp_path / f"set/{split}/_annotations.csv").write_text(f"{split}.jpg,1,2,30,40,car\n")
    done = convert("csv", "yolo", tmp_path / "set", tmp_path / "out")
    assert [(c.split, c.images, c.boxes) for c in done] == [("train", 1, 1), ("valid", 1, 1)]

"""Each kind of fault, made for real: it is named with its place, ends a strict run in one line, and is mended or left
out under `drop`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats.build import read
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import KEPT_PER_KIND, KINDS, UNREAD_SUFFIXES, Faults
from ddptrain.errors import UserError
from ddptrain.system.printable import counted

Make = Callable[..., DetectionDataset]


def dropped(config: DetectionDataset, kind: str, where: str, error: bool = True, count: int = 1) -> AnnotationTable:
    """The table under `drop`; the only kind of fault is `kind`, `count` times, first found at `where`; and `error`
    refuses (or not) in one line that names kind and place."""
    table, faults = read(config, "drop")
    assert {k: n for k, n in faults.counts.items() if k != "box of an image left out"} == {kind: count}
    assert faults.kept[0].where.endswith(where)
    assert f"{counted(count, kind, KINDS[kind].plural)} (" in faults.text()
    if error:
        with pytest.raises(UserError) as caught:
            read(config)
        message = str(caught.value)
        assert "\n" not in message
        assert where in message
        assert kind in message
        assert "data.on_fault=drop" in message
    else:
        assert len(read(config)[0].boxes) == len(table.boxes)
    return table


GOOD = "0 0.5 0.5 0.2 0.2\n"


def test_sound_set_has_no_faults(yolo_set: Make) -> None:
    table, faults = read(yolo_set({"a": GOOD, "b": ""}))
    assert faults.text() == "no faults"
    assert len(table) == 2
    np.testing.assert_allclose(table.boxes, [[40, 32, 60, 48]], atol=1e-4)


@pytest.mark.parametrize("row", ["0 0.5 nan 0.2 0.2", "0 0.5 0.5 inf 0.2", "1 0.1 0.1 nan 0.1 0.2 0.2"])
def test_non_finite_number(yolo_set: Make, row: str) -> None:
    table = dropped(yolo_set({"a": f"{GOOD}{row}\n"}), "non-finite number", "a.txt:2")
    assert len(table.boxes) == 1


@pytest.mark.parametrize("row", ["0 0.5 0.5 0.2", "0 0.5 0.5 0.2 0.2 0.9", "car 0.5 0.5 0.2 0.2", "0 .5 .5 -.2 .2"])
def test_malformed_row(yolo_set: Make, row: str) -> None:
    table = dropped(yolo_set({"a": f"{GOOD}\n{row}\n"}), "malformed row", "a.txt:3")
    assert len(table.boxes) == 1


@pytest.mark.parametrize("number", ["2", "-1", "0.5", "nan"])
def test_unknown_class(yolo_set: Make, number: str) -> None:
    table = dropped(yolo_set({"a": f"{number} 0.5 0.5 0.2 0.2\n"}), "unknown class", "a.txt:1")
    assert len(table) == 1
    assert len(table.boxes) == 0


def test_zero_area_box(yolo_set: Make) -> None:
    table = dropped(yolo_set({"a": f"{GOOD}0 0.5 0.5 0 0.2\n"}), "zero-area box", "a.txt:2", error=False)
    assert len(table.boxes) == 1


def test_duplicate_row(yolo_set: Make) -> None:
    other_class = "1 0.5 0.5 0.2 0.2\n"
    table = dropped(yolo_set({"a": GOOD + other_class + GOOD}), "duplicate row", "a.txt:3", error=False)
    assert table.labels.tolist() == [0, 1]


def test_a_little_over_the_edge_is_clipped(yolo_set: Make) -> None:
    config = yolo_set({"a": "0 0.1 0.5 0.212 0.2\n"})  # x1 = -0.6 px
    table = dropped(config, "box over the edge by 1 px or less", "a.txt:1", error=False)
    np.testing.assert_allclose(table.boxes, [[0, 32, 20.6, 48]], atol=1e-4)


def test_box_outside_image_is_clipped_or_dropped(yolo_set: Make) -> None:
    config = yolo_set({"a": "0 0 0.5 0.2 0.2\n" + "0 1.5 0.5 0.2 0.2\n"})
    table = dropped(config, "box outside image", "a.txt:1", count=2)
    np.testing.assert_allclose(table.boxes, [[0, 32, 10, 48]], atol=1e-4)


def test_missing_text_file_is_background(yolo_set: Make) -> None:
    table = dropped(yolo_set({"a": GOOD, "b": None}), "image without label file", "b.png", error=False)
    assert np.diff(table.offsets).tolist() == [1, 0]


def test_label_without_image(yolo_set: Make) -> None:
    config = yolo_set({"a": GOOD})
    (Path(config.root) / "train/labels/lost.txt").write_text(GOOD)
    (Path(config.root) / "train/labels/notes.txt").write_text("labelled by two of us in May\n")
    (Path(config.root) / "train/labels/classes.txt").write_text("car\nbus\n")
    assert len(dropped(config, "label without image", "lost.txt")) == 1
    assert read(config, "drop")[1].counts["box of an image left out"] == 1


def test_missing_image(voc_set: Make, voc_object: Callable[..., str]) -> None:
    config = voc_set(voc_object("car", 1, 1, 9, 9))
    (Path(config.root) / "JPEGImages/a.jpg").unlink()
    table = dropped(config, "missing image", "train.txt:1")
    assert [Path(table.path(i)).name for i in range(len(table))] == ["b.jpg"]
    assert table.boxes.tolist() == [[10, 10, 30, 30]]


def test_unreadable_image(voc_set: Make, voc_object: Callable[..., str]) -> None:
    config = voc_set(voc_object("car", 1, 1, 9, 9))
    path = Path(config.root) / "JPEGImages/a.jpg"
    path.write_bytes(path.read_bytes()[:-800])
    table = dropped(config, "unreadable image", "a.jpg")
    assert table.boxes.tolist() == [[10, 10, 30, 30]]


def test_size_mismatch(voc_set: Make, voc_object: Callable[..., str], save_image: Callable[..., Path]) -> None:
    config = voc_set(voc_object("car", 1, 1, 9, 9))
    save_image(Path(config.root) / "JPEGImages/a.jpg", (50, 40))
    assert len(dropped(config, "size mismatch", "train.txt:1")) == 1


def test_image_without_label(voc_set: Make, voc_object: Callable[..., str]) -> None:
    config = voc_set(voc_object("car", 1, 1, 9, 9))
    (Path(config.root) / "Annotations/a.xml").unlink()
    assert len(dropped(config, "image without label", "train.txt:1")) == 1


def test_unreadable_label(voc_set: Make) -> None:
    table = dropped(voc_set("<object><name>car</object>"), "unreadable label", "a.xml:3")
    assert table.boxes.tolist() == [[10, 10, 30, 30]]


def test_duplicate_image(voc_set: Make, voc_object: Callable[..., str]) -> None:
    config = voc_set(voc_object("car", 1, 1, 9, 9), split="a\nb\na\n")
    table = dropped(config, "duplicate image", "train.txt:3", error=False)
    assert len(table) == len(table.boxes) == 2


def test_every_kind_is_made_here() -> None:
    tests = "".join(p.read_text() for p in Path(__file__).parents[1].rglob("test_*.py"))
    assert [k for k in KINDS if k not in tests and k.removesuffix(" file") not in UNREAD_SUFFIXES] == []


def test_counts_stay_exact_beyond_what_is_kept(yolo_set: Make) -> None:
    rows = "".join(f"0 0.5 0.5 0 {0.1 + i * 1e-5}\n" for i in range(KEPT_PER_KIND + 5))
    faults = read(yolo_set({"a": rows}))[1]
    assert faults.counts["zero-area box"] == KEPT_PER_KIND + 5
    assert len(faults.kept) == KEPT_PER_KIND


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(KeyError):
        Faults().add("zero area box", "a:1", "")


def test_nothing_left_is_an_empty_dataset(yolo_set: Make) -> None:
    config = yolo_set({"a": GOOD})
    (Path(config.root) / "train/images/a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty dataset.*1 unreadable image"):
        read(config, "drop")


@pytest.mark.parametrize("fmt", ["voc", "yolo", "coco", "visdrone"])
def test_missing_root(tmp_path: Path, fmt: str) -> None:
    with pytest.raises(UserError, match="gone is not a directory"):
        read(DetectionDataset(name="d", format=fmt, root=str(tmp_path / "gone"), split="train"))

"""The readers against real datasets in their native bytes: images, boxes, classes, sizes, flags."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats.build import read
from ddptrain.data.tables.boxes import AnnotationTable

Read = Callable[..., list[AnnotationTable]]


@pytest.fixture
def read_splits(data_root: Path) -> Read:
    """Tables of some splits, under the strict default of `on_fault`."""

    def reader(folder: str, fmt: str, splits: tuple[str | None, ...] = (None,), **config: object) -> list:
        root = str(data_root / folder)
        configs = [DetectionDataset(name=folder, format=fmt, root=root, split=s, **config) for s in splits]
        return [read(c)[0] for c in configs]

    return reader


def sizes(tables: list[AnnotationTable]) -> tuple[int, ...]:
    """Small, medium and large boxes by their own area (COCO's limits)."""
    sides = np.concatenate([t.boxes[:, 2:] - t.boxes[:, :2] for t in tables]).astype(float)
    return tuple(np.bincount(np.digitize(sides.prod(1), [32**2, 96**2]), minlength=3))


def total(tables: list[AnnotationTable]) -> tuple[int, int]:
    """Images, boxes; and every table obeys what its docstring says."""
    for t in tables:
        assert len(t.offsets) == len(t.paths.offsets) == len(t) + 1
        assert t.offsets[0] == 0
        assert t.offsets[-1] == len(t.boxes) == len(t.labels) == len(t.ignore) == len(t.crowd) == len(t.area)
        limit = np.tile(t.sizes[t.image_of_rows()], 2)
        assert (t.boxes >= 0).all()
        assert (t.boxes <= limit).all()
        assert (t.boxes[:, 2:] > t.boxes[:, :2]).all()
        assert ((t.labels >= 0) | t.ignore).all()
        assert (t.labels < len(t.names)).all()
        assert all(Path(t.path(i)).is_file() for i in range(len(t)))
    return sum(map(len, tables)), sum(len(t.boxes) for t in tables)


def test_bccd(read_splits: Read, data_root: Path) -> None:
    tables = read_splits("bccd", "voc", ("trainval", "test"))
    # 4 888 objects, two of them without an area
    assert total(tables) == (292 + 72, 4886)
    assert sizes(tables) == (41 - 2, 1524, 3323)
    assert {t.names for t in tables} == {("Platelets", "RBC", "WBC")}
    config = DetectionDataset(name="b", format="voc", root=str(data_root / "bccd"), split="trainval")
    assert dict(read(config)[1].counts) == {"zero-area box": 2}


def test_bccd_train_and_val_make_trainval(read_splits: Read) -> None:
    train, val, both = read_splits("bccd", "voc", ("train", "val", "trainval"))
    assert len(train) == 205
    assert len(train) + len(val) == len(both)
    assert len(train.boxes) + len(val.boxes) == len(both.boxes)


def test_aerial_cars(read_splits: Read) -> None:
    tables = read_splits("aerial_cars_yolo", "yolo", ("train", "valid", "test"), names=("car", "truck", "bus", "mini"))
    assert [len(t) for t in tables] == [321, 31, 15]
    assert total(tables)[1] == 9548
    assert sizes(tables) == (9357, 191, 0)
    assert tables[0].names == ("car", "truck", "bus", "mini")


def test_aerial_cars_val_is_the_key_of_its_data_yaml(read_splits: Read) -> None:
    by_key, by_folder = read_splits("aerial_cars_yolo", "yolo", ("val", "valid"))
    assert by_key.names == ("0", "1", "2", "3")
    assert {Path(by_key.path(i)).resolve() for i in range(31)} == {Path(by_folder.path(i)).resolve() for i in range(31)}


def test_tiny_coco(read_splits: Read) -> None:
    tables = read_splits("tiny_coco38", "coco", ("train2017", "val2017"))
    assert [len(t) for t in tables] == [32, 6]
    assert total(tables)[1] == 424
    assert sizes(tables) == (150, 172, 102)
    assert sum(int(t.crowd.sum()) for t in tables) == 5
    assert sum(int((np.diff(t.offsets) == 0).sum()) for t in tables) == 2
    assert len(tables[0].names) == 80
    # ids have gaps up to 90; names, not ids, say what a label is
    assert tables[0].names[-1] == "toothbrush"
    assert (np.concatenate([t.labels for t in tables]) >= 0).all()


def test_visdrone(read_splits: Read) -> None:
    (table,) = read_splits("visdrone_native", "visdrone", ("train",))
    assert total([table]) == (5, 361)
    assert sizes([table]) == (185, 129, 47)
    assert int((table.labels < 0).sum()) == 32
    others = table.labels == table.names.index("others")
    assert table.ignored_names == ("others",)
    assert int((others | table.ignore).sum()) == 38
    assert dict(zip(table.names, np.bincount(table.labels[table.labels >= 0], minlength=11).tolist())) == {
        "pedestrian": 45,
        "people": 21,
        "bicycle": 5,
        "car": 75,
        "van": 27,
        "truck": 99,
        "tricycle": 3,
        "awning-tricycle": 5,
        "bus": 0,
        "motor": 43,
        "others": 6,
    }


def test_visdrone_vehicles(read_splits: Read) -> None:
    tables = read_splits("visdrone_vehicles_yolo", "yolo")
    assert total(tables) == (8, 338)
    assert sizes(tables) == (109, 178, 51)
    assert tables[0].names == ("car", "van", "truck", "bus", "motor")


MULTIFORMAT = {
    "voc": ("voc", "gts/pascalvoc_format"),
    "imagenet": ("voc", "gts/imagenet_format/Annotations"),
    "coco 1": ("coco", "gts/coco_format_v1/instances_default.json"),
    "coco 2": ("coco", "gts/coco_format_v2/instances_v2.json"),
    "yolo": ("yolo", "gts/yolo_format/obj_train_data"),
}


@pytest.mark.parametrize("other", [k for k in MULTIFORMAT if k != "voc"])
def test_one_truth_in_five_forms(read_splits: Read, other: str) -> None:
    """Same images, sizes, classes and, to one pixel, the same 273 boxes."""

    def load(key: str) -> AnnotationTable:
        fmt, annotations = MULTIFORMAT[key]
        return read_splits("multiformat100", fmt, annotations=annotations, images="images")[0]

    assert differences(load("voc"), load(other)) <= 1


def differences(a: AnnotationTable, b: AnnotationTable) -> float:
    """Largest difference of a coordinate, after the rows of each image were put in the same order."""
    assert total([a]) == total([b]) == (100, 273)

    def rows(t: AnnotationTable) -> dict[str, list[tuple]]:
        found = {}
        for i in range(len(t)):
            r = t.rows(i)
            named = [(t.names[label], *box) for label, box in zip(t.labels[r], t.boxes[r].tolist())]
            found[(Path(t.path(i)).name, *t.sizes[i].tolist())] = named
        return found

    left, right = rows(a), rows(b)
    assert left.keys() == right.keys()
    worst = 0.0
    for key, boxes in left.items():
        remaining = list(right[key])
        for name, *box in boxes:
            gaps = [np.abs(np.subtract(box, o[1:])).max() if o[0] == name else np.inf for o in remaining]
            worst = max(worst, float(np.min(gaps)))
            remaining.pop(int(np.argmin(gaps)))
        assert not remaining
    return worst

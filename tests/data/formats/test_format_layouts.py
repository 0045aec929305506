"""Layouts that the field uses for YOLO, COCO, VOC and VisDrone, and the one line for those it cannot be."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats.build import read
from ddptrain.errors import UserError

Make = Callable[..., DetectionDataset]
Save = Callable[..., Path]
GOOD = "0 0.5 0.5 0.2 0.2\n"


def refused(config: DetectionDataset) -> str:
    with pytest.raises(UserError) as caught:
        read(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# YOLO


def put(root: Path, save_image: Save, image: str, label: str, text: str = GOOD) -> None:
    save_image(root / image)
    (root / label).parent.mkdir(parents=True, exist_ok=True)
    (root / label).write_text(text)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("train/images/a.jpg", "train/labels/a.txt"),
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("images/train/deep/a.JPG", "labels/train/deep/a.txt"),
    ],
)
def test_yolo_folders_alone(tmp_path: Path, save_image: Save, image: str, label: str) -> None:
    put(tmp_path, save_image, image, label)
    config = DetectionDataset(name="y", format="yolo", root=str(tmp_path), split="train", names=("car",))
    table = read(config)[0]
    assert len(table.boxes) == 1
    assert table.path(0) == str(tmp_path / image)


@pytest.mark.parametrize("train", ["train: images/one", "train: [images/one, images/two]", "train: one.txt"])
@pytest.mark.parametrize("path", ["", "path: .\n", "path: ../set\n"])
def test_data_yaml_paths(tmp_path: Path, save_image: Save, train: str, path: str) -> None:
    root = tmp_path / "set"
    for part in ("one", "two"):
        put(root, save_image, f"images/{part}/{part}.jpg", f"labels/{part}/{part}.txt")
    (root / "one.txt").write_text("./images/one/one.jpg\n")
    (root / "data.yaml").write_text(f"{path}{train}\nnames: {{0: car}}\n")
    table = read(DetectionDataset(name="y", format="yolo", root=str(root), split="train"))[0]
    assert table.names == ("car",)
    assert len(table) == (2 if "two" in train else 1)
    assert len(table.boxes) == len(table)


def test_annotations_may_name_the_yaml(yolo_set: Make) -> None:
    config = yolo_set({"a": GOOD})
    (Path(config.root) / "other.yaml").write_text("names: [bus]\n")
    assert read(config)[0].names == ("car", "bus")
    assert read(config.model_copy(update={"annotations": "other.yaml"}))[0].names == ("bus",)
    assert "is not a file" in refused(config.model_copy(update={"annotations": "gone.yaml"}))


def test_labels_beside_images(tmp_path: Path, save_image: Save) -> None:
    put(tmp_path, save_image, "frames/a.jpg", "frames/a.txt")
    config = DetectionDataset(name="y", format="yolo", root=str(tmp_path), images="frames", names=("car",))
    assert len(read(config)[0].boxes) == 1


def test_polygons_become_their_boxes(yolo_set: Make) -> None:
    table = read(yolo_set({"a": "1 0.1 0.1 0.5 0.2 0.3 0.6\n"}))[0]
    np.testing.assert_allclose(table.boxes, [[10, 8, 50, 48]], atol=1e-4)


def test_order_does_not_depend_on_the_file_system(yolo_set: Make) -> None:
    table = read(yolo_set({"c": GOOD, "a": GOOD, "b": GOOD}))[0]
    assert [Path(table.path(i)).stem for i in range(3)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("yaml", "config", "words"),
    [
        ("names: [car, bus]\nnc: 3\n", {}, "nc is 3 and names has 2"),
        ("names: {0: car, 2: bus}\n", {}, "without a gap"),
        ("names: [car, car]\n", {}, "car is listed twice"),
        ("names: [car, bus]\n", {"names": ("car",)}, "names (car) are not the classes of"),
        ("nc: 2\n", {"names": ("car",)}, "names has 1 class and nc of"),
        ("nc: 2\n", {}, "give names"),
        ("names: [car\n", {}, "data.yaml:2: not valid YAML"),
        ("names: car\n", {}, "names must be a list"),
        ("names: [car]\ntrain: {a: b}\n", {}, "train must be a path or a list"),
        ("names: [car]\ntrain: gone\n", {}, "gone does not exist"),
        ("names: [car]\n", {"split": "holdout"}, "split holdout does not exist; splits in"),
        ("names: [car]\n", {"split": None}, "no split is chosen; splits in"),
        ("names: [car]\n", {"annotations": "gone"}, "gone is not a directory"),
        ("names: [car]\n", {"images": "gone"}, "gone does not exist"),
    ],
)
def test_yolo_contradictions(yolo_set: Make, yaml: str, config: dict, words: str) -> None:
    assert words in refused(yolo_set({"a": GOOD}, yaml, **config))


def test_a_set_without_any_text_file_is_not_all_background(yolo_set: Make) -> None:
    message = refused(yolo_set({"a": None, "b": None}))
    assert "none of its 2 images has a text file" in message
    assert "labels/a.txt" in message


# COCO


def coco_set(root: Path, save_image: Save, **changes: object) -> DetectionDataset:
    """A set of two images (one without boxes) with gapped category ids; `changes` replace parts of the JSON."""
    for stem in ("a", "b"):
        save_image(root / "images" / f"{stem}.jpg")
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 80}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 90, "name": "bus"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 20, 30, 40], "area": 700.5, "iscrowd": 0},
            {"id": 5, "image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 1},
            {"id": 6, "image_id": 7, "category_id": 3, "bbox": [1, 1, 5, 5], "ignore": 1},
        ],
        **changes,
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return DetectionDataset(name="c", format="coco", root=str(root), split="train")


def test_coco(tmp_path: Path, save_image: Save) -> None:
    table = read(coco_set(tmp_path, save_image))[0]
    assert table.names == ("car", "bus")
    assert table.labels.tolist() == [1, 0, 0]
    assert table.boxes.tolist() == [[10, 20, 40, 60], [0, 0, 5, 5], [1, 1, 6, 6]]
    assert table.area.tolist() == [700.5, 25, 25]
    assert table.crowd.tolist() == [False, True, False]
    assert table.ignore.tolist() == [False, False, True]
    assert table.offsets.tolist() == [0, 3, 3]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"id": 4, "image_id": 7, "category_id": 3}, "annotation 4: malformed row"),
        ({"id": 4, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1]}, "annotation 4: malformed row"),
        ({"id": 4, "image_id": 7, "category_id": 3, "bbox": [0, 0, None, 1]}, "annotation 4: malformed row"),
        ({"id": 4, "image_id": 7, "category_id": 3, "bbox": [0, 0, float("nan"), 1]}, "4: non-finite number"),
        ({"id": 4, "image_id": 7, "category_id": 4, "bbox": [0, 0, 1, 1]}, "annotation 4: unknown class"),
        ({"id": 4, "image_id": 8, "category_id": 3, "bbox": [0, 0, 1, 1]}, "annotation 4: label without image"),
        ({"id": [], "image_id": {}, "category_id": 3, "bbox": [0, 0, 1, 1]}, "annotation 0: malformed row"),
        ("text", "annotation 0: malformed row"),
    ],
)
def test_coco_faults_name_the_annotation(tmp_path: Path, save_image: Save, annotation: object, words: str) -> None:
    assert words in refused(coco_set(tmp_path, save_image, annotations=[annotation]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"categories": [{"id": 1}]}, "categories[0]: malformed row: has no name"),
        ({"categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "car"}]}, "car is listed twice"),
        ({"images": 3}, "has no list 'images'"),
        ({"images": [{"id": 7, "file_name": "gone.jpg"}]}, "gone.jpg"),
        ({"images": []}, "empty dataset"),
    ],
)
def test_coco_contradictions(tmp_path: Path, save_image: Save, changes: dict, words: str) -> None:
    config = coco_set(tmp_path, save_image, **{"annotations": [], **changes})
    assert words in refused(config)


def test_coco_files(tmp_path: Path, save_image: Save) -> None:
    config = coco_set(tmp_path, save_image)
    assert "splits in" in refused(config.model_copy(update={"split": "val"}))
    assert len(read(config.model_copy(update={"split": None}))[0]) == 2
    (tmp_path / "annotations/instances_train.json").write_text("{")
    assert "is not valid JSON" in refused(config)
    (tmp_path / "annotations/instances_train.json").write_text('{"images": []}')
    assert "has no list 'annotations'" in refused(config)
    assert "is not a file" in refused(config.model_copy(update={"annotations": "gone.json"}))


# VOC


def test_voc_difficult_and_names(voc_set: Make, voc_object: Callable[..., str]) -> None:
    objects = voc_object("dog", 1, 2, 9, 9, difficult=1) + voc_object("cat", 3.5, 4, 9, 9)
    config = voc_set(objects, split="a\n")
    table = read(config)[0]
    # car occurs only in b, which is not in the split
    assert table.names == ("car", "cat", "dog")
    assert table.labels.tolist() == [2, 1]
    assert table.ignore.tolist() == [True, False]
    assert table.boxes.tolist() == [[1, 2, 9, 9], [3.5, 4, 9, 9]]
    assert read(config.model_copy(update={"names": ("dog", "cat")}))[0].labels.tolist() == [0, 1]
    message = refused(config.model_copy(update={"names": ("dog", "car")}))
    assert "a.xml:4: unknown class: 'cat'" in message


@pytest.mark.parametrize("body", ["<object><name>car</name></object>", "<object><name>car</name><bndbox/></object>"])
def test_voc_object_without_a_box(voc_set: Make, body: str) -> None:
    assert "a.xml:3: malformed row" in refused(voc_set(body))


def test_voc_lists_may_have_suffixes_and_flags(voc_set: Make, voc_object: Callable[..., str]) -> None:
    objects = voc_object("car", 1, 2, 9, 9)
    assert len(read(voc_set(objects, split="a.jpg\n\nb  -1\n"))[0]) == 2


def test_voc_splits(voc_set: Make) -> None:
    assert "split test does not exist; splits in" in refused(voc_set("").model_copy(update={"split": "test"}))


def test_voc_without_lists_reads_every_file(voc_set: Make) -> None:
    config = voc_set("")
    (Path(config.root) / "ImageSets/Main/train.txt").unlink()
    assert len(read(config.model_copy(update={"split": None}))[0]) == 2


def test_voc_folders(voc_set: Make) -> None:
    assert "no folder of images" in refused(voc_set("").model_copy(update={"images": "gone"}))
    assert "no folder of annotations" in refused(voc_set("").model_copy(update={"annotations": "gone"}))


# VisDrone


@pytest.mark.parametrize("ending", ["\n", "\r\n", ",\r\n"])
def test_visdrone_rows(tmp_path: Path, save_image: Save, ending: str) -> None:
    rows = ["1,2,10,20,0,0,0,0", "1,2,10,20,1,4,0,0", "5,2,10,20,0,4,1,2", "5,5,10,20,0,11,0,0"]
    put(tmp_path, save_image, "images/a.jpg", "annotations/a.txt", "".join(r + ending for r in rows))
    table = read(DetectionDataset(name="v", format="visdrone", root=str(tmp_path)))[0]
    assert table.labels.tolist() == [-1, 3, 3, 10]
    # others are ignored by name, through the label space
    assert table.ignore.tolist() == [True, False, True, False]
    assert table.boxes[1].tolist() == [1, 2, 11, 22]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1,2,10,20,1,4,0", "a.txt:1: malformed row: 7 fields"),
        ("1,2,10,x,1,4,0,0", "a.txt:1: malformed row"),
        ("1,2,10,20,1,12,0,0", "a.txt:1: unknown class: category 12"),
    ],
)
def test_visdrone_faults(tmp_path: Path, save_image: Save, row: str, words: str) -> None:
    put(tmp_path, save_image, "images/a.jpg", "annotations/a.txt", row)
    assert words in refused(DetectionDataset(name="v", format="visdrone", root=str(tmp_path)))


def test_visdrone_pairs(tmp_path: Path, save_image: Save) -> None:
    put(tmp_path, save_image, "images/a.jpg", "annotations/b.txt", "")
    faults = read_faults(DetectionDataset(name="v", format="visdrone", root=str(tmp_path)))
    assert "1 label without image" in faults
    assert "1 image without label" in faults


def read_faults(config: DetectionDataset) -> str:
    with pytest.raises(UserError) as caught:
        read(config, "drop")
    return str(caught.value)


def test_visdrone_splits(data_root: Path) -> None:
    config = DetectionDataset(name="v", format="visdrone", root=str(data_root / "visdrone_native"), split="val")
    assert "split val does not exist; splits in" in refused(config)
    assert "train" in refused(config)

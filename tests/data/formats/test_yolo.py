"""What a YOLO set may hold beside plain boxes, how its data.yaml is understood, and lists of images from elsewhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddptrain.commands.convert import convert
from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats.build import read, splits_of
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError

Make = Callable[..., DetectionDataset]
Save = Callable[..., Path]
GOOD = "0 0.5 0.5 0.2 0.2"
NAMES = "names: [car, bus]\n"


def refused(config: DetectionDataset) -> str:
    with pytest.raises(UserError) as caught:
        read(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def boxes(found: tuple[AnnotationTable, Faults]) -> list[list[int]]:
    return found[0].boxes.round().astype(int).tolist()


# rows

POSE2 = f"{GOOD} 0.1 0.1 0.9 0.9"
POSE3 = f"{GOOD} 0.1 0.1 2 0.9 0.9 0"


@pytest.mark.parametrize(("shape", "row"), [("[2, 2]", POSE2), ("[2, 3]", POSE3), ('["2", "3"]', POSE3)])
def test_rows_with_key_points_have_their_box_in_front(yolo_set: Make, shape: str, row: str) -> None:
    found = read(yolo_set({"a": f"{row}\n{row.replace('0.5', '0.4')}\n"}, f"{NAMES}kpt_shape: {shape}\n"))
    assert boxes(found) == [[40, 32, 60, 48], [30, 24, 50, 40]]
    assert found[1].text() == "no faults; rows with key points, read as the box in front of them: 2"


@pytest.mark.parametrize("row", [GOOD, POSE3, "0 .1 .1 .2 .2 .3 .1", f"{POSE2} 0.5 0.5", f"{POSE2} 0.5"])
def test_a_row_of_another_length_is_not_a_row_with_key_points(yolo_set: Make, row: str) -> None:
    message = refused(yolo_set({"a": row}, f"{NAMES}kpt_shape: [2, 2]\n"))
    due = "fields; a row must have 9: class cx cy w h and, by kpt_shape, 2 key points of 2 numbers"
    assert f"a.txt:1: malformed row: {len(row.split())} {due}" in message


@pytest.mark.parametrize("shape", ["[17]", "[17, 4]", "[0, 2]", "17", "[a, 2]", "[2.0, 2]", "[2, 2, 2]"])
def test_a_shape_of_key_points_that_is_none(yolo_set: Make, shape: str) -> None:
    assert "it must be [number of key points, 2 or 3]" in refused(yolo_set({"a": POSE2}, f"{NAMES}kpt_shape: {shape}\n"))


def test_polygons_and_rotated_boxes_are_counted(yolo_set: Make) -> None:
    corners, polygon = "0 .1 .1 .5 .1 .5 .5 .1 .5", "1 .1 .1 .5 .2 .3 .6"
    found = read(yolo_set({"a": f"{corners}\n{polygon}\n{polygon} .9 .9 .8 .8\n{GOOD}\n"}))
    assert boxes(found) == [[10, 8, 50, 40], [10, 8, 50, 48], [10, 8, 90, 72], [40, 32, 60, 48]]
    told = "polygons, read as their bounding boxes (rows with key points need kpt_shape in data.yaml): 2; rows of four points"
    assert told in found[1].text()


def test_digits_with_underscores_are_not_numbers(yolo_set: Make) -> None:
    assert "a.txt:1: malformed row: 0 .5 .5 0_1 .2" in refused(yolo_set({"a": "0 .5 .5 0_1 .2"}))


def test_rows_with_key_points_need_their_shape(yolo_set: Make) -> None:
    assert "rows with key points need kpt_shape" in refused(yolo_set({"a": f"{GOOD} .1 .1 2"}))


def test_labels_in_utf_16_and_with_upper_case_suffix(yolo_set: Make) -> None:
    config = yolo_set({"a": None, "b": None})
    folder = Path(config.root) / "train/labels"
    (folder / "a.TXT").write_bytes(GOOD.encode("utf-16"))
    (folder / "b.txt").write_bytes(f"{GOOD}\n0 \xb0.5 .5 .2 .2\n".encode("latin-1"))
    assert "b.txt:2: malformed row" in refused(config)
    table, faults = read(config, "drop")
    np.testing.assert_allclose(table.boxes, [[40, 32, 60, 48]] * 2, atol=1e-4)
    assert faults.counts == {"malformed row": 1}


# data.yaml


@pytest.mark.parametrize(
    ("yaml", "names"),
    [
        ('names: [car, bus]\nnc: "2"\n', ("car", "bus")),
        ("names: ['0', \"1\"]\n", ("0", "1")),
        ("names: [yes, no]\n", ("yes", "no")),
        ("names: [1, 007]\n", ("1", "007")),
        ("names: [~, null]\n", ("~", "null")),
        ("names: [2001-1-1, 1.50]\n", ("2001-1-1", "1.50")),
        ("names: [0x1, 1e3]\n", ("0x1", "1e3")),
        ("names: {0: on, 1: off}\n", ("on", "off")),
        ("names: {'0': n, '1': y}\n", ("n", "y")),
        ("names: {1: bus, 0: car}\n", ("car", "bus")),
        ("names:\n  - true\n  - false\nnc: 2\n", ("true", "false")),
    ],
)
def test_names_are_what_is_written(yolo_set: Make, yaml: str, names: tuple[str, ...]) -> None:
    table = read(yolo_set({"a": GOOD}, yaml))[0]
    assert (table.names, table.labels.tolist()) == (names, [0])


def test_names_that_count_from_1_number_the_labels_so(yolo_set: Make) -> None:
    config = yolo_set({"a": f"1{GOOD[1:]}\n2{GOOD[1:]}\n"}, "names: {1: car, 2: bus}\nnc: 2\n")
    table = read(config)[0]
    assert (table.names, table.labels.tolist()) == (("car", "bus"), [0, 1])
    (Path(config.root) / "train/labels/a.txt").write_text(GOOD)
    assert "a.txt:1: unknown class: 0; must be from 1 to 2" in refused(config)


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("names: [car, '']\n", "names: class 1 has no name"),
        ("names: [car, ]\nnc: x\n", "nc is 'x'; it must be an integer"),
        ("names: [car]\nnc: 1.5\n", "nc is 1.5; it must be an integer"),
        ("names: [car]\nnc: true\n", "nc is True; it must be an integer"),
        ('names: [car, bus]\nnc: "3"\n', "nc is 3 and names has 2"),
        ("names: {2: car, 3: bus}\n", "names must number its classes 0 to 1, or 1 to 2, without a gap; it has 2, 3"),
        ("names: {0: car, 00: bus}\n", "without a gap; it has 0, 00"),
        ("names: {car: 0, bus: 1}\n", "a mapping from number to name"),
        ("names: [[car], bus]\n", "names: class 0 has no name"),
        ("names: [car]\nval: a\nvalid: b\n", "val and valid name the same split"),
    ],
)
def test_names_that_contradict(yolo_set: Make, yaml: str, words: str) -> None:
    assert words in refused(yolo_set({"a": GOOD}, yaml))


def test_several_yaml_files_are_named(yolo_set: Make) -> None:
    config = yolo_set({"a": GOOD})
    root = Path(config.root)
    (root / "data.yaml").rename(root / "one.yaml")
    assert read(config)[0].names == ("car", "bus")
    (root / "two.yaml").write_text(NAMES)
    assert "has several YAML files: one.yaml, two.yaml; give the right one as annotations" in refused(config)


# lists of images


def listed(tmp_path: Path, save_image: Save, entry: str) -> DetectionDataset:
    """A set whose train.txt names its two images as `entry` says, with CRLF."""
    root = tmp_path / "set"
    for stem in ("a", "b"):
        save_image(root / f"images/train/{stem}.jpg")
        (root / "labels/train").mkdir(parents=True, exist_ok=True)
        (root / f"labels/train/{stem}.txt").write_text(GOOD)
    (root / "train.txt").write_bytes("\r\n".join([entry.format(stem) for stem in "ab"] + [""]).encode())
    (root / "data.yaml").write_text(f"{NAMES}train: train.txt\n")
    return DetectionDataset(name="y", format="yolo", root=str(root), split="train")


@pytest.mark.parametrize(
    "entry", ["images/train/{}.jpg", "./images/train/{}.jpg", "images\\train\\{}.jpg", ".\\images\\train\\{}.jpg"]
)
def test_lists_with_either_slash(tmp_path: Path, save_image: Save, entry: str) -> None:
    table, faults = read(listed(tmp_path, save_image, entry))
    assert (len(table), len(table.boxes), faults.text()) == (2, 2, "no faults")


@pytest.mark.parametrize(
    ("entry", "dropped"),
    [
        ("/home/bob/set/images/train/{}.jpg", "home/bob/set"),
        ("C:\\data\\set\\images\\train\\{}.jpg", "C:/data/set"),
        ("../other/images/train/{}.jpg", "../other"),
    ],
)
def test_lists_made_below_another_root(tmp_path: Path, save_image: Save, entry: str, dropped: str) -> None:
    table, faults = read(listed(tmp_path, save_image, entry))
    assert len(table.boxes) == 2
    root = tmp_path / "set"
    assert faults.text() == f"no faults; 2 paths of {root}/train.txt found below {root} without {dropped}/ in front"


def test_lists_of_images_that_are_not_there(tmp_path: Path, save_image: Save) -> None:
    config = listed(tmp_path, save_image, "pictures/{}.jpg")
    message = refused(config)
    assert f"train.txt:1: none of the 2 images that it lists exists; looked for {config.root}/pictures/a.jpg;" in message
    (Path(config.root) / "train.txt").write_text("images/train/a.jpg\npictures/b.jpg\n")
    assert "train.txt:2: missing image" in refused(config)
    table, faults = read(config, "drop")
    assert (len(table), faults.counts) == (1, {"missing image": 1})


@pytest.mark.parametrize("prefix", ["", "data/"])
@pytest.mark.parametrize("described", [True, False])
def test_cvat_yolo(tmp_path: Path, save_image: Save, prefix: str, described: bool) -> None:
    root = tmp_path / "images" / "set"  # a folder `images` above it is none of the set's
    for stem in ("frame_0", "frame_1"):
        save_image(root / f"obj_train_data/{stem}.PNG")
        (root / f"obj_train_data/{stem}.txt").write_text(f"1{GOOD[1:]}\n")
    (root / "obj.names").write_text("car\nbus\n")
    (root / "train.txt").write_text("".join(f"{prefix}obj_train_data/frame_{i}.PNG\n" for i in range(2)))
    if described:
        files = f"train = {prefix}train.txt\nnames = {prefix}obj.names\nbackup = backup/\n"
        (root / "obj.data").write_text(f"classes = 2\n{files}")
    config = DetectionDataset(name="y", format="yolo", root=str(root))
    assert splits_of(config) == ("train",)
    table, faults = read(config.model_copy(update={"split": "train"}))
    assert (table.names, table.labels.tolist(), faults.counts) == (("car", "bus"), [1, 1], {})
    assert [c.images for c in convert("yolo", "coco", root, tmp_path / "out")] == [2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("classes = 3\nnames = obj.names\n", "classes is 3 and"),
        ("names = gone.names\n", "gone.names does not exist; correct names"),
        ("names obj.names\n", "obj.data:1: must be key = value"),
        ("names = obj.names\ntrain = gone.txt\n", "train: .*gone.txt does not exist; correct train or path"),
    ],
)
def test_cvat_yolo_that_contradicts_itself(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "obj.names").write_text("car\n")
    (tmp_path / "obj.data").write_text(text)
    with pytest.raises(UserError, match=words):
        read(DetectionDataset(name="y", format="yolo", root=str(tmp_path), split="train"))


def test_a_list_beside_the_folder_of_a_split_is_reported(tmp_path: Path, save_image: Save) -> None:
    for name in ("a", "b"):
        save_image(tmp_path / f"images/train/{name}.jpg")
        (tmp_path / "labels/train").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"labels/train/{name}.txt").write_text(GOOD)
    (tmp_path / "train.txt").write_text("images/train/a.jpg\n")
    (tmp_path / "classes.txt").write_text("car\n")
    config = DetectionDataset(name="y", format="yolo", root=str(tmp_path), split="train")
    table, faults = read(config)
    assert len(table) == 2
    assert f"{tmp_path}/images/train is read, and not {tmp_path}/train.txt; set images to that" in faults.text()
    table, faults = read(config.model_copy(update={"images": "train.txt"}))
    assert (len(table), faults.text()) == (1, "no faults")


def test_a_label_file_of_two_images(yolo_set: Make, save_image: Save) -> None:
    config = yolo_set({"a": GOOD})
    save_image(Path(config.root) / "train/images/a.jpg")
    assert "a.png: shared label file: " in refused(config)
    table, faults = read(config, "drop")
    assert (len(table), len(table.boxes), faults.counts["shared label file"]) == (2, 2, 1)


def test_class_names_beside_the_labels_of_a_split(tmp_path: Path, save_image: Save) -> None:
    save_image(tmp_path / "images/train/a.jpg")
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text(GOOD)
    (tmp_path / "labels/train/classes.txt").write_text("car\nbus\n")
    table, _ = read(DetectionDataset(name="y", format="yolo", root=str(tmp_path), split="train"))
    assert table.names == ("car", "bus")


def test_folders_of_splits_convert_as_a_whole(tmp_path: Path, save_image: Save) -> None:
    for split in ("train", "val"):
        save_image(tmp_path / f"set/{split}/images/{split}.jpg")
        save_image(tmp_path / f"set/{split}/images/.ipynb_checkpoints/x.jpg")
        (tmp_path / f"set/{split}/labels").mkdir()
        (tmp_path / f"set/{split}/labels/{split}.txt").write_text(GOOD)
    (tmp_path / "set/classes.txt").write_text("car\n")
    (tmp_path / "set/.cache/images").mkdir(parents=True)
    done = convert("yolo", "coco", tmp_path / "set", tmp_path / "out")
    assert [(c.split, c.images, c.boxes) for c in done] == [("train", 1, 1), ("val", 1, 1)]


def test_labels_of_an_absent_image_folder_are_reported(tmp_path: Path, save_image: Callable[..., Path]) -> None:
    save_image(tmp_path / "images/train/s1/a.jpg")
    for stem in ("s1/a", "s2/b", "c"):
        (tmp_path / f"labels/train/{stem}.txt").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"labels/train/{stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    config = DetectionDataset(name="y", format="yolo", root=str(tmp_path), split="train", names=("car",))
    _, faults = read(config, "drop")
    where = [Path(f.where).stem for f in faults.kept if f.kind == "label without image"]
    assert where == ["c", "b"]
    # a folder that a link reaches as well holds no orphans
    for name in ("c.txt", "s2/b.txt"):
        (tmp_path / "labels/train" / name).unlink()
    for kind in ("images", "labels"):
        (tmp_path / kind / "train/linked").symlink_to("s1")
    assert "label without image" not in read(config, "drop")[1].counts

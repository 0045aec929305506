"""Every field of a COCO file passes a strict gate, and every box that is left out is in a count."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.mask import encode, toBbox

from ddptrain.commands.convert import convert
from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats.build import read
from ddptrain.data.formats.outlines import rle_box
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError

Save = Callable[..., Path]
IMAGES = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
BOX = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}
OTHER = {"id": 8, "image_id": 2, "category_id": 2, "bbox": [1, 2, 3, 4]}
CATEGORIES = [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}]
TRIANGLE = [10, 10, 30, 12, 20.5, 40]


@pytest.fixture
def coco(tmp_path: Path, save_image: Save) -> Callable[..., DetectionDataset]:
    """Writes a COCO set of two images of 100×80 pixels; keyword arguments replace its lists."""
    for name in ("a", "b"):
        save_image(tmp_path / f"set/images/{name}.png")

    def make(**changes: Any) -> DetectionDataset:
        content = {"images": IMAGES, "annotations": [BOX, OTHER], "categories": CATEGORIES, **changes}
        (tmp_path / "set/x.json").write_text(json.dumps(content))
        return DetectionDataset(name="c", format="coco", root=str(tmp_path / "set"), annotations="x.json")

    return make


def refused(config: DetectionDataset) -> str:
    with pytest.raises(UserError) as caught:
        read(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def dropped(config: DetectionDataset, **counts: int) -> tuple[AnnotationTable, Faults]:
    """The table under `drop`, whose faults are these (with `_` for blanks) and no others."""
    table, faults = read(config, "drop")
    assert dict(faults.counts) == {k.replace("_", " "): n for k, n in counts.items()}
    return table, faults


def test_an_id_of_two_images(coco: Callable[..., DetectionDataset]) -> None:
    config = coco(images=[*IMAGES, {"id": 1, "file_name": "b.png"}])
    message = refused(config)
    assert "x.json: image 1: duplicate image id" in message
    assert "a.png has the id of " in message
    assert "in total: 2 duplicate image ids" in message
    table, _ = dropped(config, duplicate_image_id=2, box_of_an_image_left_out=1)
    assert [Path(table.path(i)).name for i in range(len(table))] == ["b.png"]
    assert len(table.boxes) == 1


def test_an_image_that_is_listed_twice_alike(coco: Callable[..., DetectionDataset]) -> None:
    table, _ = dropped(coco(images=[*IMAGES, {"id": 1, "file_name": "./a.png"}]), duplicate_image=1)
    assert len(table.boxes) == 2


def test_a_file_under_two_ids_keeps_all_its_boxes(coco: Callable[..., DetectionDataset]) -> None:
    config = coco(images=[*IMAGES, {"id": 3, "file_name": "a.png"}], annotations=[BOX, {**OTHER, "image_id": 3}])
    assert "x.json: image 3: repeated entry of an image" in refused(config)
    table, _ = dropped(config, repeated_entry_of_an_image=1)
    assert table.offsets.tolist() == [0, 2, 2]


def test_annotation_ids_twice(coco: Callable[..., DetectionDataset]) -> None:
    config = coco(annotations=[BOX, {**OTHER, "id": 7}, {**OTHER, "id": 9}, {**BOX, "id": 7, "image_id": 2}])
    message = refused(config)
    assert "x.json: annotation 7: duplicate annotation id: entries 0 and 1 of annotations have this id" in message
    table, _ = dropped(config, duplicate_annotation_id=2, duplicate_row=1)
    assert len(table.boxes) == 3
    dropped(coco(annotations=[{k: v for k, v in a.items() if k != "id"} for a in (BOX, OTHER)]))  # ids may be missing


@pytest.mark.parametrize("key", ["iscrowd", "ignore", "ignore_region"])
def test_flags(coco: Callable[..., DetectionDataset], key: str) -> None:
    for value in ("0", "1", "false", 2, [], 0.5):
        message = refused(coco(annotations=[OTHER, {**BOX, key: value}]))
        assert f"annotation 7: malformed row: {key} is {value!r}; must be 0, 1, true or false" in message
    for value in (0, 1, True, False, None, 0.0, 1.0):
        table, _ = dropped(coco(annotations=[{**BOX, key: value}]))
        assert bool((table.ignore | table.crowd).any()) == bool(value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": "1 2 3 4"}, "malformed row: bbox is '1 2 3 4'; must be a list of four finite numbers"),
        ({"bbox": [1, 2, 3, "4"]}, "malformed row: bbox is [1, 2, 3, '4']"),
        ({"bbox": [1, 2, 3, True]}, "malformed row: bbox is [1, 2, 3, True]"),
        ({"bbox": [[1, 2, 3, 4]]}, "malformed row: bbox is [[1, 2, 3, 4]]"),
        ({"bbox": {"x": 1}}, "malformed row: bbox is {'x': 1}"),
        ({"bbox": [1, 2, 3, 4, 5]}, "malformed row: bbox is [1, 2, 3, 4, 5]"),
        ({"bbox": [1, 2, 3, 10**400]}, "malformed row: bbox is [1, 2, 3, 1000"),
        ({"bbox": [1, 2, float("nan"), 4]}, "non-finite number: bbox is [1, 2, nan, 4]"),
        ({"bbox": []}, "malformed row: bbox is [] and there is no segmentation"),
        (
            {"bbox": None, "segmentation": {"counts": "abc", "size": [1, 2]}},
            "malformed row: segmentation: its counts must be a list of integers ≥ 0, or their text",
        ),
        ({"bbox": [], "segmentation": [[1, 2, 3]]}, "malformed row: segmentation is [[1, 2, 3]]; must be a list of polygons"),
        ({"bbox": [], "segmentation": [[1, 2, 3, 4, 5, "6"]]}, "malformed row: segmentation is"),
        ({"area": "400"}, "malformed row: area is '400'; must be a number from 0 to 1e12"),
        ({"area": float("inf")}, "non-finite number: area is inf"),
        ({"area": -1}, "malformed row: area is -1"),
        ({"area": 1e300}, "malformed row: area is 1e+300"),
        ({"image_id": "1"}, "label without image: image_id '1' is not among the images"),
        ({"image_id": 5}, "label without image: image_id 5"),
        ({"image_id": True}, "malformed row: image_id is True; must be an integer or a string"),
        ({"image_id": None}, "malformed row: image_id is None"),
        ({"category_id": "1"}, "unknown class: category_id '1' is not among the categories"),
        ({"category_id": 1.5}, "malformed row: category_id is 1.5"),
        ({"category_id": [1]}, "malformed row: category_id is [1]"),
        ({"bbox": [0.1, 0.125, 0.5, 0.25]}, "box in fractions: must be in pixels: 0.1 0.125 0.6 0.375"),
    ],
)
def test_a_field_of_another_type(coco: Callable[..., DetectionDataset], change: dict[str, Any], words: str) -> None:
    config = coco(annotations=[OTHER, {**BOX, **change}])
    message = refused(config)
    assert f"x.json: annotation 7: {words}" in message
    table, faults = read(config, "drop")
    assert len(table.boxes) == faults.counts.total() == 1


@pytest.mark.parametrize("bbox", [[], None, "missing", [0, 0, 0, 0]])
def test_the_box_of_a_polygon(coco: Callable[..., DetectionDataset], bbox: Any) -> None:
    annotation: dict[str, Any] = {**BOX, "bbox": bbox, "segmentation": [TRIANGLE, [5, 20, 6, 20, 5, 21]], "area": None}
    if bbox == "missing":
        del annotation["bbox"]
    config = coco(annotations=[annotation, OTHER])
    table, _ = dropped(config, segmentation_without_box=1)
    assert table.boxes[0].tolist() == [5, 10, 30, 40]
    assert table.area[0] == 25 * 30
    read(config)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"width": "100", "height": 80}, "malformed row: width is '100'; must be an integer ≥ 0"),
        ({"width": 100, "height": -80}, "malformed row: height is -80"),
        ({"width": 99, "height": 80}, "size mismatch"),
        ({"file_name": None}, "malformed row: file_name is None; must be a non-empty line of text"),
        ({"file_name": ""}, "malformed row: file_name is ''"),
        ({"file_name": "\ud800"}, "malformed row: file_name is"),
        ({"file_name": "a\nb.png"}, "malformed row: file_name is 'a\\nb.png'; must be a non-empty line of text"),
        ({"file_name": "../../elsewhere.png"}, "image outside root"),
    ],
)
def test_an_image_left_out_takes_its_boxes_into_a_count(
    coco: Callable[..., DetectionDataset], image: dict[str, Any], words: str
) -> None:
    config = coco(images=[{**IMAGES[0], **image}, IMAGES[1]])
    assert f"x.json: image 1: {words}" in refused(config)
    table, faults = read(config, "drop")
    assert len(table) == len(table.boxes) == 1
    assert faults.counts["box of an image left out"] + faults.counts["label without image"] == 1


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([*CATEGORIES, {"id": 1, "name": "van"}], "categories[2]: malformed row: id 1 is also that of 'car'"),
        ([*CATEGORIES, {"id": "1", "name": "van"}], "some ids of categories are numbers and some are strings"),
        ([*CATEGORIES, {"id": 3, "name": 4}], "categories[2]: malformed row: name is 4; must be a non-empty line of text"),
        ([*CATEGORIES, "van"], "categories[2]: malformed row: the entry is 'van'; must be a mapping"),
    ],
)
def test_categories(coco: Callable[..., DetectionDataset], categories: list[Any], words: str) -> None:
    config = coco(categories=categories)
    assert words in refused(config)
    with pytest.raises(UserError):
        read(config, "drop")  # without one of its classes the others would mislead


def test_a_region_that_stands_there_for_some_classes_only(coco: Callable[..., DetectionDataset]) -> None:
    region = {**OTHER, "ignore_region": 1, "ignore": 1, "iscrowd": 1}
    table, _ = dropped(coco(annotations=[BOX, region, {**region, "id": 9}]))
    assert table.labels.tolist() == [0, -1]


def test_a_key_given_twice(coco: Callable[..., DetectionDataset]) -> None:
    config = coco()
    file = Path(config.root) / "x.json"
    file.write_text(file.read_text().replace('"id": 7', '"id": 7, "id": 8'))
    assert "the key 'id' is given twice in one object" in refused(config)
    file.write_text("[" * 100_000)
    assert "is not valid JSON" in refused(config)


def test_the_remedies_are_reported(coco: Callable[..., DetectionDataset]) -> None:
    config = coco(annotations=[{**BOX, "bbox": [], "segmentation": [TRIANGLE]}, OTHER])
    assert read(config)[1].text() == "1 segmentation without box (box taken from the segmentation)"


@pytest.mark.parametrize("as_text", [True, False])
def test_the_box_of_run_lengths(coco: Callable[..., DetectionDataset], as_text: bool) -> None:
    pixels = np.zeros((80, 100), np.uint8, order="F")
    pixels[20:30, 10:40] = pixels[25:40, 60:61] = 1
    counts: Any = np.diff(np.flatnonzero(np.diff(pixels.ravel("F"), prepend=0, append=0)), prepend=0).tolist()
    counts.append(80 * 100 - sum(counts))
    if as_text:
        counts = encode(pixels)["counts"].decode()
    mask = {"size": [80, 100], "counts": counts}
    images = [{**IMAGES[0], "width": 100, "height": 80}, IMAGES[1]]
    table, _ = dropped(
        coco(images=images, annotations=[{**BOX, "bbox": None, "segmentation": mask, "iscrowd": 1}, OTHER]),
        segmentation_without_box=1,
    )
    assert table.boxes.tolist() == [[10, 20, 61, 40], [1, 2, 4, 6]]
    assert table.crowd.tolist() == [True, False]


@pytest.mark.parametrize(
    ("mask", "wrong"),
    [
        ({"size": [80, 100], "counts": [8000]}, "it holds no pixel"),
        ({"size": [80, 100], "counts": [10, 20]}, "its counts make 30 pixels and its size 8000"),
        ({"size": [80, 100], "counts": [8010, -10]}, "its counts must be a list of integers ≥ 0, or their text"),
        ({"size": [80, 100], "counts": "oooo"}, "its counts must be a list of integers ≥ 0, or their text"),
        ({"size": [100, 80], "counts": [100, 50, 7850]}, "its size is 80×100 where the image has 100×80 pixels"),
        ({"size": 80, "counts": [100, 50, 7850]}, "its size must be [height, width]"),
        ({"counts": []}, "its size must be [height, width]"),
    ],
)
def test_run_lengths_that_are_none(coco: Callable[..., DetectionDataset], mask: dict[str, Any], wrong: str) -> None:
    row = {"id": 7, "image_id": 1, "category_id": 1, "segmentation": mask}
    images = [{**IMAGES[0], "width": 100, "height": 80}, IMAGES[1]]
    assert f"annotation 7: malformed row: segmentation: {wrong}" in refused(coco(images=images, annotations=[row, OTHER]))


def test_random_masks_have_the_boxes_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        pixels = np.asfortranarray((rng.random((rng.integers(1, 9), rng.integers(1, 9))) < 0.2).astype(np.uint8))
        if pixels.any():
            mask = encode(pixels)
            height, width = pixels.shape
            box = rle_box({"size": [height, width], "counts": mask["counts"].decode()})
            assert box == (width, height, toBbox(mask).astype(int).tolist())


def test_the_boxes_of_a_malformed_image_are_counted_as_that(coco: Callable[..., DetectionDataset]) -> None:
    config = coco(images=[{**IMAGES[0], "width": "100"}, IMAGES[1]])
    assert "image 1: malformed row: width is '100'; must be an integer ≥ 0" in refused(config)
    dropped(config, malformed_row=1, box_of_an_image_left_out=1)


@pytest.mark.parametrize("layout", ["{}/annotations/labels.json", "{}/_annotations.coco.json", "annotations/instances_{}.json"])
def test_every_split_is_found(tmp_path: Path, save_image: Save, layout: str) -> None:
    for split, name in (("train", "a"), ("val", "b")):
        save_image(tmp_path / f"set/{split}/images/{name}.png")
        file = tmp_path / "set" / layout.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        image = {"id": 1, "file_name": f"{name}.png"}
        file.write_text(json.dumps({"images": [image], "annotations": [BOX], "categories": CATEGORIES}))
    if layout.startswith("annotations"):  # COCO's other tasks
        for task in ("captions", "person_keypoints"):
            (tmp_path / f"set/annotations/{task}_train.json").write_text("{}")
    done = convert("coco", "yolo", tmp_path / "set", tmp_path / "out")
    assert [(c.split, c.images, c.boxes) for c in done] == [("train", 1, 1), ("val", 1, 1)]

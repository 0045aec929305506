"""Boxes on images."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest

from ddptrain.errors import UserError
from ddptrain.reporting import pictures

NAMES = ["RBC", "WBC", "Platelets"]


def test_on_a_real_image_each_box_is_outlined_in_its_colour(data_root: Path) -> None:
    note = sorted((data_root / "bccd" / "Annotations").glob("*.xml"))[3]
    image = cv2.imread(str(data_root / "bccd" / "JPEGImages" / f"{note.stem}.jpg"))[..., ::-1]
    boxes, labels = [], []
    for item in ElementTree.parse(note).iter("object"):
        boxes.append([float(item.findtext(f"bndbox/{k}", "")) for k in ("xmin", "ymin", "xmax", "ymax")])
        labels.append(NAMES.index(item.findtext("name", "")))
    before = image.copy()
    out = pictures.draw(image, boxes, labels, NAMES)
    assert (image == before).all()
    assert out.shape == image.shape
    for box, label in zip(boxes, labels):
        x1, _, x2, y2 = (int(v) for v in box)
        near = out[min(y2, out.shape[0] - 1), x1 : x2 - 2].astype(int)
        hits = (np.abs(near - pictures.colour(label)).max(-1) < 40).mean()
        assert hits > 0.5, "the lower side shows the class's colour, but for what lies over it"


def test_small_images_are_enlarged_in_whole_multiples() -> None:
    for size, factor in (((240, 320), 2), ((640, 480), 1), ((100, 64), 7)):
        out = pictures.draw(np.zeros((*size, 3), np.uint8), [], [], NAMES)
        assert out.shape == (size[0] * factor, size[1] * factor, 3)


def test_names_hide_no_other_name_and_no_other_box() -> None:
    image = np.zeros((640, 640, 3), np.uint8)
    boxes = [[100, 100, 110, 110], [104, 100, 114, 110], [300, 300, 400, 400], [310, 285, 318, 293]]
    out = pictures.draw(image, boxes, [0, 1, 2, 1], NAMES)

    def ground(label: int, x: int, y: int) -> float:
        """Part of a name's ground left and above (x, y) that has the class's colour."""
        return float((out[y - 14 : y - 2, x : x + 24] == pictures.colour(label)).all(-1).mean())

    assert ground(0, 100, 100) > 0.5
    assert ground(1, 104, 100) == 0, "the first of two neighbours is named"
    assert ground(2, 300, 300) < 0.2, "its name would lie on the small box above it"
    assert ground(1, 310, 285) > 0.5


def test_ignore_regions_are_hatched_in_gray_and_nothing_outside_them() -> None:
    out = pictures.draw(np.zeros((100, 100, 3), np.uint8), [], [], NAMES, ignore=[[20, 30, 60, 70]], min_side=100)
    inside = out[32:68, 22:58]
    gray = (inside == pictures.GRAY).all(-1).mean()
    assert 0.1 < gray < 0.5, "hatched: the image shows through"
    outside = out.copy()
    outside[28:73, 18:63] = 0
    assert not outside.any()


def test_boxes_beyond_the_image_and_broken_numbers_are_survived() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    boxes = [[-50, -50, 500, 500], [1e12, 0, 2e12, 5], [np.nan, 0, np.inf, 9], [60, 60, 64, 64]]
    out = pictures.draw(image, boxes, [0, 1, 2, 0], NAMES, scores=[0.1, 0.2, 0.3, 1], ignore=[[900, 900, 990, 990]])
    assert out.dtype == np.uint8
    assert out.shape == (640, 640, 3)


def test_colours_of_neighbours_differ() -> None:
    colours = np.array([pictures.colour(i) for i in range(20)])
    apart = np.abs(colours[:, None].astype(int) - colours[None]).sum(-1) + 1000 * np.eye(20, dtype=int)
    assert apart.min() > 30


def test_grid_and_beside_hold_their_images() -> None:
    images = [np.full((10, 20, 3), i, np.uint8) for i in range(1, 6)]
    sheet = pictures.grid(images)
    assert sheet.shape == (24, 68, 3)
    assert [sheet[y, x, 0] for y in (5, 19) for x in (5, 29, 53)] == [1, 2, 3, 4, 5, 114]
    assert (sheet[10:14] == 255).all()
    assert (sheet[:, 20:24] == 255).all()
    pair = pictures.beside(images[0], images[1])
    assert pair.shape == (10, 44, 3)
    assert (pair[0, 0, 0], pair[0, 21, 0], pair[0, -1, 0]) == (1, 255, 2)


def test_of_a_title_that_is_too_long_the_end_is_shown() -> None:
    text = "a_very_long_name_of_a_file_" * 9 + "17.jpg"
    fitted = pictures.fitted(text, 320)
    assert fitted.startswith("..")
    assert fitted.endswith("17.jpg")
    assert 280 < cv2.getTextSize(fitted, pictures.FONT, 0.45, 1)[0][0] <= 316
    assert pictures.fitted("17.jpg", 320) == "17.jpg"


def test_saved_pictures_are_read_back_in_rgb(tmp_path: Path) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = 250
    for name in ("a.png", "deep/ü.JPG"):
        pictures.save(tmp_path / name, image)
        data = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        read = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(read.astype(int) - image).max() <= 6
    with pytest.raises(UserError, match=r"x\.gif: pictures are written as \.png or \.jpg"):
        pictures.save(tmp_path / "x.gif", image)

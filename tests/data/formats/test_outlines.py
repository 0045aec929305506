"""Masks of COCO's polygons and run lengths over a box."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats.build import read
from ddptrain.data.formats.cache import read_cached
from ddptrain.data.formats.outlines import mask_of
from ddptrain.data.tables.box_masks import GRID, unpack

Save = Callable[..., Path]
BOX = np.array([16.0, 8.0, 48.0, 72.0])  # cells of 2 x 4 pixels
TRIANGLE = [16.0, 8.0, 48.0, 40.0, 20.0, 72.0]


def grid(segmentation: Any) -> np.ndarray:
    return unpack(mask_of(segmentation, BOX)[None])[0]


def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points are in the triangle."""
    corners = np.reshape(TRIANGLE, (3, 2))
    turns = [(b - a)[0] * (y - a[1]) - (b - a)[1] * (x - a[0]) for a, b in zip(corners, np.roll(corners, -1, 0))]
    return np.asarray(np.min(turns, 0) >= 0)


def pixels() -> np.ndarray:
    """bool `[80, 64]`: the pixels of an image whose centres are in it."""
    y, x = np.mgrid[:80, :64] + 0.5
    return inside(x, y)


def runs(text: bool) -> dict[str, Any]:
    """Its run lengths."""
    if text:
        packed = coco_mask.encode(np.asfortranarray(pixels().astype(np.uint8)))
        return {"size": [80, 64], "counts": packed["counts"].decode()}
    flat = pixels().ravel("F").astype(int)
    return {"size": [80, 64], "counts": np.diff(np.flatnonzero(np.diff(flat)) + 1, prepend=0, append=len(flat)).tolist()}


@pytest.mark.parametrize("text", [True, False])
def test_run_lengths_are_seen_at_the_centres_of_the_cells(text: bool) -> None:
    """A centre is where four pixels meet; the one below on the right counts."""
    assert (grid(runs(text)) == pixels()[10:72:4, 17:48:2]).all()


def test_a_polygon_covers_the_cells_whose_centres_are_in_it_and_its_edge() -> None:
    y, x = (np.mgrid[:GRID, :GRID] + 0.5) * np.array([4, 2])[:, None, None] + np.array([8, 16])[:, None, None]
    polygon, exact = grid([TRIANGLE]), inside(x, y)
    assert polygon[exact].all()
    assert 0 < (polygon & ~exact).sum() <= 3 * GRID
    assert 0.35 < exact.mean() < 0.6


def test_parts_that_overlap_are_joined() -> None:
    left, right = ([x, 8, x + 20, 8, x + 20, 72, x, 72] for x in (16, 28))
    assert grid([left, right]).all()


@pytest.mark.parametrize(
    "segmentation", [None, [], 5, "text", [[1, 2, 3]], [["a"] * 6], [[float("inf")] * 6], [[10**400] * 6], {"size": [1, 2]}]
)
def test_without_a_mask_that_can_be_read_the_object_is_all_of_its_box(segmentation: Any) -> None:
    assert grid(segmentation).all()


def test_the_table_has_the_masks_of_its_boxes(tmp_path: Path, save_image: Save) -> None:
    """In the order of the boxes, without those of rows that are left out, over a box that is clipped to its image."""
    for name in "ab":
        save_image(tmp_path / f"{name}.png", (64, 80))
    boxes = [[16, 8, 32, 64], [16, 8, 0, 64], [16, 8, 32, 64], [48, 8, 32, 64]]
    outlines = [[TRIANGLE], [TRIANGLE], runs(True), [[x + 32 if i % 2 == 0 else x for i, x in enumerate(TRIANGLE)]]]
    rows = [
        {"id": i, "image_id": image, "category_id": 1, "bbox": box, "segmentation": outline}
        for i, (image, box, outline) in enumerate(zip((2, 1, 1, 1), boxes, outlines))
    ]
    images = [{"id": i, "file_name": f"{name}.png"} for i, name in ((1, "a"), (2, "b"))]
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "car"}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    config = DetectionDataset(name="c", format="coco", root=str(tmp_path), annotations="train.json", images=".")
    table = read(config, "drop")[0]
    assert table.masks is not None
    for _ in range(2):  # read, and stored
        np.testing.assert_array_equal(read_cached(config, "drop", tmp_path / "cache", settle=-60)[0].masks, table.masks)
    first, half, other = unpack(table.masks)
    assert (first == grid(runs(True))).all()
    assert (other == grid([TRIANGLE])).all()
    # the left half of the same triangle
    assert (half == grid([TRIANGLE])[:, : GRID // 2].repeat(2, 1)).mean() > 0.9
    for row in rows:
        del row["segmentation"]
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert read(config, "drop")[0].masks is None

"""Masks on a grid over their boxes: what a part of a box and what the pixels of an image see of them."""

from __future__ import annotations

import numpy as np

from ddptrain.data.tables.box_masks import GRID, covered_pixels, masks_of_parts, pack, unpack

BOX = np.array([10.0, 20.0, 42.0, 84.0])
CELLS = np.random.default_rng(0).random((5, GRID, GRID)) < 0.5


def test_cells_come_back() -> None:
    masks = pack(CELLS)
    assert masks.shape == (5, 32)
    assert (unpack(masks) == CELLS).all()
    assert unpack(pack(CELLS[:0])).shape == (0, GRID, GRID)


def test_the_pixels_of_a_box_show_its_cells() -> None:
    """Cells of 2 x 4 pixels; what lies around the box is not covered."""
    mask = pack(CELLS[:1])[0]
    shown = covered_pixels(mask, BOX, np.array([7, 18]), np.array([40, 70]))
    assert (shown[2:66, 3:35] == CELLS[0].repeat(4, 0).repeat(2, 1)).all()
    around = shown.copy()
    around[2:66, 3:35] = False
    assert not around.any()
    # of an image that is read at half its size, a pixel in x is a cell, and two in y are one
    assert (covered_pixels(mask, BOX, np.array([5, 10]), np.array([16, 32]), 2) == CELLS[0].repeat(2, 0)).all()


def test_a_part_of_a_box_shows_a_part_of_its_mask() -> None:
    boxes = np.tile(BOX, (5, 1))
    assert (masks_of_parts(pack(CELLS), boxes, boxes) == pack(CELLS)).all()
    corner = boxes.copy()
    corner[:, 2:] = (boxes[:, :2] + boxes[:, 2:]) / 2
    quarter = unpack(masks_of_parts(pack(CELLS), boxes, corner))
    assert (quarter == CELLS[:, : GRID // 2, : GRID // 2].repeat(2, 1).repeat(2, 2)).all()

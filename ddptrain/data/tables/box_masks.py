"""Masks of objects, each on a grid of 16 x 16 cells over its box, in 32 bytes: fine enough for copies of small objects."""

import numpy as np
import numpy.typing as npt

from ddptrain.data.tables.base import F64, Mask

GRID = 16
"""Cells along each side of a box."""

U8 = npt.NDArray[np.uint8]
_CENTRES = (np.arange(GRID) + 0.5) / GRID


def pack(cells: Mask) -> U8:
    """uint8 `[M, 32]` of bool `[M, 16, 16]`: which cells an object covers, row by row, eight in a byte."""
    return np.packbits(cells.reshape(len(cells), GRID * GRID), axis=1)


def unpack(masks: U8) -> Mask:
    """What `pack` was given."""
    return np.unpackbits(masks, axis=1).reshape(len(masks), GRID, GRID).astype(bool)


def masks_of_parts(masks: U8, boxes: F64, parts: F64) -> U8:
    """The masks `[M, 32]` of parts `[M, 4]` of boxes `[M, 4]`: of each cell what lies at its centre."""
    sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
    at = parts[:, None, :2] + _CENTRES[:, None] * (parts[:, 2:] - parts[:, :2])[:, None]
    cell = np.floor((at - boxes[:, None, :2]) / sides * GRID).clip(0, GRID - 1).astype(np.int64)
    return pack(unpack(masks)[np.arange(len(masks))[:, None, None], cell[:, :, None, 1], cell[:, None, :, 0]])


def covered_pixels(mask: U8, box: F64, first: npt.NDArray[np.int64], span: npt.NDArray[np.int64], step: int = 1) -> Mask:
    """bool `[h, w]`: of `span` (w, h) pixels from `first` (x, y) on, those whose centre an object covers.

    Args:
        mask: uint8 `[32]`: of the object in `box` `[4]`.
        step: side of these pixels in those of the box.
    """
    cells = unpack(mask[None])[0]
    x, y = (
        np.floor(((first[i] + 0.5 + np.arange(span[i])) * step - box[i]) / (box[i + 2] - box[i]) * GRID).astype(np.int64)
        for i in (0, 1)
    )
    inside = ((y >= 0) & (y < GRID))[:, None] & (x >= 0) & (x < GRID)
    return np.asarray(cells[y.clip(0, GRID - 1)][:, x.clip(0, GRID - 1)] & inside)

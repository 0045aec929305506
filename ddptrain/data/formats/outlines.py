"""Outlines of objects in COCO files, polygons or run lengths: their boxes, and their masks over a box."""

import re
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ddptrain.data.formats.fields import POLYGONS, misfit
from ddptrain.data.tables.base import F64
from ddptrain.data.tables.box_masks import GRID, pack

_TEXT = re.compile(r"([P-o]{0,6}[0-O])*")
"""Run lengths as text: numbers of five bits a character; all but the last character of a number are marked."""
_FINE = 4
"""Bits of a cell in which OpenCV takes the points of a polygon."""


def box_of(segmentation: list[Any] | dict[str, Any], size: tuple[int, int] | None) -> list[float]:
    """x, y, width, height of polygons, or of a mask in run lengths; `ValueError` with kind and what of a fault."""
    if isinstance(segmentation, list):
        wrong = misfit("segmentation", segmentation, POLYGONS)
        if wrong is not None:
            raise ValueError(*wrong)
        points = np.concatenate(segmentation).reshape(-1, 2)
        return [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()]
    try:
        width, height, box = rle_box(segmentation)
        if size is not None and size != (width, height):
            raise ValueError(f"its size is {width}×{height} where the image has {size[0]}×{size[1]} pixels")
    except ValueError as e:
        raise ValueError("malformed row", f"segmentation: {e}") from None
    return [float(v) for v in box]


def mask_of(segmentation: Any, box: F64) -> npt.NDArray[np.uint8]:
    """uint8 `[32]`: the mask of an object over its box, x1, y1, x2, y2, see `box_masks`. All of the box where the segmentation
    is missing or cannot be read."""
    try:
        cells = _of_runs(segmentation, box) if isinstance(segmentation, dict) else _of_polygons(segmentation, box)
    except (ValueError, TypeError, OverflowError):
        cells = np.zeros((GRID, GRID), bool)
    return pack(cells[None] if cells.any() else np.ones((1, GRID, GRID), bool))[0]


def _of_polygons(polygons: Any, box: F64) -> npt.NDArray[np.bool_]:
    """The cells that it covers or that its edge touches, so that a thin object does not vanish between their centres."""
    canvas = np.zeros((GRID, GRID), np.uint8)
    for polygon in polygons or ():
        points = (np.array(polygon, np.float64).reshape(-1, 2) - box[:2]) / (box[2:] - box[:2]) * GRID
        # OpenCV's pixels have their centres on whole numbers; a point far outside is one at a distance
        fixed = np.round((points - 0.5).clip(-(2**15), 2**15) * 2**_FINE)
        if not np.isfinite(fixed).all():
            raise ValueError("a point is not finite")
        cv2.fillPoly(canvas, [fixed.astype(np.int32)], 1, shift=_FINE)
    return canvas > 0


def _of_runs(segmentation: dict[str, Any], box: F64) -> npt.NDArray[np.bool_]:
    """The cells at whose centres a pixel of it is."""
    width, height, _ = rle_box(segmentation)
    counts = segmentation["counts"]
    ends = np.cumsum(_numbers(counts) if isinstance(counts, str) else counts)
    centres = (np.arange(GRID)[:, None] + 0.5) / GRID * (box[2:] - box[:2]) + box[:2]
    x, y = np.floor(centres).astype(np.int64).clip(0, (width - 1, height - 1)).T
    # pixels by columns; a run of an object is every second one
    return np.asarray(np.searchsorted(ends, x * height + y[:, None], "right") % 2 == 1)


def rle_box(segmentation: dict[str, Any]) -> tuple[int, int, list[int]]:
    """(width, height) of a mask in COCO's run lengths and x, y, width, height of its object; `ValueError` with what is wrong.

    Pixels by columns, runs of none and of the object in turn, as a list of numbers or as the text that pycocotools makes of
    it. pycocotools itself accepts broken ones silently.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or [type(n) for n in size] != [int, int] or min(size) < 1 or max(size) >= 1 << 31:
        raise ValueError("its size must be [height, width]")
    if isinstance(counts, str) and _TEXT.fullmatch(counts):
        counts = _numbers(counts)
    if not isinstance(counts, list) or not counts or any(type(n) is not int or n < 0 for n in counts):
        raise ValueError("its counts must be a list of integers ≥ 0, or their text")
    height, width = size
    if sum(counts) != height * width:
        raise ValueError(f"its counts make {sum(counts)} pixels and its size {height * width}")
    ends = np.cumsum(counts, dtype=np.int64)
    stops = ends[1::2]
    starts = ends[::2][: len(stops)]
    starts, stops = starts[stops > starts], stops[stops > starts]
    if not len(starts):
        raise ValueError("it holds no pixel")
    left, right = int(starts[0]) // height, int(stops[-1] - 1) // height
    above, below = starts % height, (stops - 1) % height
    one_column = starts // height == (stops - 1) // height
    top, bottom = (int(above.min()), int(below.max())) if one_column.all() else (0, height - 1)
    return width, height, [left, top, right - left + 1, bottom - top + 1]


def _numbers(text: str) -> list[int]:
    """The counts in a text; from the fourth on, each stands there as the difference to the one two before it."""
    counts: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            number -= (bits & 16) << (shift - 4)  # the sign
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number = shift = 0
    return counts

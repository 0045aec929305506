"""The box of a mask in COCO's run lengths: pixels by columns, runs of none and of the object in turn, as a list of numbers or
as the text that pycocotools makes of it. pycocotools itself takes broken ones without a word."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

_TEXT = re.compile(r"([P-o]{0,6}[0-O])*")
"""Numbers of five bits a character; all but the last character of a number are marked."""


def rle_box(segmentation: dict[str, Any]) -> tuple[int, int, list[int]]:
    """(width, height) of the mask and x, y, width, height of what it holds; `ValueError` with what is wrong."""
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

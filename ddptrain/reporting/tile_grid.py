"""How images are cut into tiles, as pictures. Images are uint8 `[H, W, 3]` RGB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ddptrain.reporting.pictures import colour, draw, grid

MOST = 24
"""Tiles of a sheet, at most."""
NAMES = ("kept", "cut, kept")


class ShownTile(NamedTuple):
    """A tile, and float `[n, 4]` boxes in pixels of it: objects that it shows whole, those that it cuts and keeps, and what is
    ignored."""

    image: np.ndarray
    whole: np.ndarray
    cut: np.ndarray
    ignored: np.ndarray


def overview(image: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """An image with the borders of its windows, int `[k, 4]`, each in a colour of its own."""
    out = image.copy()
    width = max(1, round(max(image.shape[:2]) / 600))
    for number, (x1, y1, x2, y2) in enumerate(windows.tolist()):
        inset = number % 4 * width  # borders that lie on each other stay apart
        cv2.rectangle(out, (x1 + inset, y1 + inset), (x2 - 1 - inset, y2 - 1 - inset), colour(number), width)
    return out


def sheet(tiles: Sequence[ShownTile], columns: int) -> np.ndarray:
    """Tiles beside each other as they lie in the image, `columns` in a row; ignored parts are hatched in grey."""
    drawn = []
    for tile in tiles[:MOST]:
        boxes = np.concatenate([tile.whole, tile.cut])
        labels = np.repeat([0, 1], [len(tile.whole), len(tile.cut)])
        drawn.append(draw(np.ascontiguousarray(tile.image), boxes, labels, NAMES, ignore=tile.ignored, min_side=320))
    return grid(drawn, min(columns, math.ceil(math.sqrt(MOST))))

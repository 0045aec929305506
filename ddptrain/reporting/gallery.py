"""Objects cut out of their images, side by side, each with its label, what was detected, and a caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ddptrain.reporting.pictures import FONT, fitted, grid, save
from ddptrain.system.printable import printable

SIDE = 260
"""Of a tile, in pixels."""
COLUMNS = 5
LINE = 18
"""Height of a line of a caption."""
LABEL, DETECTION, OTHER = (70, 200, 90), (255, 90, 60), (235, 235, 235)
"""RGB of the label and the detection that a tile is about, and of other labels."""


class Tile(NamedTuple):
    """One object to show.

    Attributes:
        image: number of its image.
        label, detection: `(x1, y1, x2, y2)` in pixels of the image; None for none.
        others: float `[n, 4]`: other labels of the image, drawn thin.
        caption: lines below.
    """

    image: int
    label: np.ndarray | None
    detection: np.ndarray | None
    others: np.ndarray
    caption: Sequence[str]


def draw(image: np.ndarray, tile: Tile) -> np.ndarray:
    """uint8 `[SIDE + lines, SIDE, 3]`: the object with as much around it as it is large, above its caption."""
    about = np.array([b for b in (tile.label, tile.detection) if b is not None], np.float64)
    low, high = about[:, :2].min(0), about[:, 2:].max(0)
    side = max(2.2 * float((high - low).max()), 64.0)
    corner = (low + high - side) / 2
    scale = SIDE / side
    matrix = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
    shown = np.ascontiguousarray(image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, 2))
    out = cv2.warpAffine(shown, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderValue=(114, 114, 114))
    for boxes, colour, wide in ((tile.others, OTHER, 1), ([tile.label], LABEL, 2), ([tile.detection], DETECTION, 2)):
        for box in (b for b in boxes if b is not None):
            x1, y1, x2, y2 = np.rint((np.asarray(box, np.float64) - np.tile(corner, 2)) * scale).astype(int).tolist()
            cv2.rectangle(out, (x1, y1), (x2, y2), colour, wide, cv2.LINE_AA)
    words = np.full((LINE * len(tile.caption) + 6, SIDE, 3), 255, np.uint8)
    for i, line in enumerate(tile.caption):
        text = fitted(printable(line), SIDE - 4)
        cv2.putText(words, text, (4, LINE * (i + 1) - 3), FONT, 0.43, (30, 35, 40), 1, cv2.LINE_AA)
    return np.concatenate([out, words])


def write(path: Path, tiles: Sequence[np.ndarray], title: str) -> None:
    """A sheet of tiles below a line that says what they show and in which colours."""
    sheet = grid(tiles, min(COLUMNS, len(tiles)))
    head = np.full((32, max(sheet.shape[1], 640), 3), 255, np.uint8)
    x = 6
    for text, colour in ((title, (30, 35, 40)), ("label", LABEL), ("detection", DETECTION), ("other labels", (150, 150, 150))):
        cv2.putText(head, text, (x, 21), FONT, 0.5, colour, 1 + (colour == (30, 35, 40)), cv2.LINE_AA)
        x += cv2.getTextSize(text, FONT, 0.5, 2)[0][0] + 18
    pad = head.shape[1] - sheet.shape[1]
    save(path, np.concatenate([head, np.pad(sheet, ((0, 0), (0, pad), (0, 0)), constant_values=255)]))

"""Charts that are drawn at every evaluation, in milliseconds and without matplotlib: uint8 `[H, W, 3]` RGB."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ddptrain.reporting.pictures import FONT, fitted
from ddptrain.system.printable import printable

INK, QUIET, RIGHT, WRONG = (28, 35, 41), (154, 164, 172), (46, 116, 181), (214, 96, 77)
NAMES, TOP = 150, 64
"""Room for the names of classes, left of a matrix and above it, in pixels."""
MOST_CELLS = 40
"""Classes up to which a matrix has names and numbers."""


def matrix(values: NDArray[np.integer], rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """A matrix of counts, rows the truth: each cell as dark as its part of the row, with that in percent."""
    parts = values / np.maximum(values.sum(1, keepdims=True), 1)
    count = max(values.shape)
    cell = 40 if count <= 20 else 26 if count <= MOST_CELLS else max(2, 800 // count)
    shade = (255 - parts[..., None] * (255 - np.array(RIGHT))).astype(np.uint8)
    grid = np.repeat(np.repeat(shade, cell, 0), cell, 1)
    if count > MOST_CELLS:
        return grid
    out = np.full((TOP + grid.shape[0], NAMES + max(grid.shape[1], 240), 3), 255, np.uint8)
    out[TOP:, NAMES : NAMES + grid.shape[1]] = grid
    _write(out, "rows: truth, columns: prediction, % of the row", 6, 18)
    for j, name in enumerate(columns):
        _write(out, fitted(printable(name), 2 * cell - 4), NAMES + j * cell + 2, TOP - (8 if j % 2 else 22), 0.36)
    for i, name in enumerate(rows):
        _write(out, fitted(printable(name), NAMES - 8), 4, TOP + i * cell + cell // 2 + 5)
        for j in range(len(columns)):
            if values[i, j]:
                colour = (255, 255, 255) if parts[i, j] > 0.5 else INK
                _write(
                    out, f"{100 * parts[i, j]:.0f}", NAMES + j * cell + cell // 4, TOP + i * cell + cell // 2 + 4, 0.36, colour
                )
    return out


def reliability(precision: NDArray[np.floating], number: NDArray[np.integer], error: float) -> np.ndarray:
    """The part of the answers that is right, in bins of equal width of their confidence, `[bins]`; the diagonal is perfect."""
    side, left, top = 320, 40, 34
    out = np.full((top + side + 30, left + side + 12, 3), 255, np.uint8)
    cv2.rectangle(out, (left, top), (left + side, top + side), QUIET, 1)
    width = side / len(number)
    for i in np.flatnonzero(number > 0).tolist():
        low = round(top + side * (1 - float(precision[i])))
        cv2.rectangle(
            out, (round(left + i * width) + 2, low), (round(left + (i + 1) * width) - 2, top + side), RIGHT, cv2.FILLED
        )
    cv2.line(out, (left, top + side), (left + side, top), WRONG, 1, cv2.LINE_AA)
    _write(out, f"expected calibration error {error:.3f}", 6, 20)
    _write(out, "confidence", left + side // 2 - 36, top + side + 22)
    for text, y in (("1", top + 8), ("0", top + side)):
        _write(out, text, left - 16, y)
    return out


def _write(out: np.ndarray, text: str, x: int, y: int, size: float = 0.43, colour: tuple[int, int, int] = INK) -> None:
    cv2.putText(out, text, (x, y), FONT, size, colour, 1, cv2.LINE_AA)

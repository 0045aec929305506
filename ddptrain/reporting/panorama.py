"""Pictures of panoramas: pairs of people on a circle of columns. Images are uint8 `[H, W, 3]` RGB."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from ddptrain.reporting.pictures import FONT, GRAY, colour, fitted, tag

STRIP_WIDTH = 640
MIN_WIDTH = 1500
"""A panorama below it is drawn enlarged, by a whole number."""
FIRST, SECOND = colour(0), colour(1)


def draw_pairs(image: np.ndarray, boxes: np.ndarray, pairs: Sequence[tuple[int, int, str]]) -> np.ndarray:
    """A panorama with all people in gray, and a coloured line between the two of each pair, around the seam where that is
    shorter.

    Args:
        boxes: float `[P, 4]`; they may end right of the panorama, which goes on at its left.
        pairs: (place in `boxes`, place in `boxes`, text), the most important first.

    Returns:
        uint8 `[H * f, W * f, 3]`.
    """
    factor = max(1, math.ceil(MIN_WIDTH / image.shape[1]))
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    width = image.shape[1]
    # drawn on the middle one of three panoramas, then folded: what crosses the seam comes out on both sides
    wide = np.concatenate([image, image, image], 1)
    untouched = wide.copy()
    moved = boxes * factor + (width, 0, width, 0)
    for box in moved:
        _rectangle(wide, box, GRAY)
    names = []
    for number, (i, j, text) in reversed(list(enumerate(pairs))):
        (ax, ay), (bx, by) = (((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (moved[i], moved[j]))
        bx += np.rint((ax - bx) / width) * width
        tint = colour(number)
        _rectangle(wide, moved[i], tint)
        _rectangle(wide, moved[j], tint)
        cv2.line(wide, (round(ax), round(ay)), (round(bx), round(by)), tint, 2, cv2.LINE_AA)
        names.append((text, round((ax + bx) / 2) - 20, round((ay + by) / 2) + 18 * (number % 5 - 2), tint))
    for name in names:  # last, so that no line crosses them
        tag(wide, *name)
    return _fold(wide, untouched, width)


def _rectangle(image: np.ndarray, box: np.ndarray, tint: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    cv2.rectangle(image, (x1, y1), (x2, y2), tint, 2)


def _fold(wide: np.ndarray, untouched: np.ndarray, width: int) -> np.ndarray:
    """Three panoramas side by side laid over one another, what was drawn on top."""
    out = wide[:, width : 2 * width].copy()
    for part in (slice(0, width), slice(2 * width, 3 * width)):
        drawn = (wide[:, part] != untouched[:, part]).any(2)
        out[drawn] = wide[:, part][drawn]
    return out


def strip(image: np.ndarray | None, boxes: np.ndarray, views: Sequence[np.ndarray], title: str) -> np.ndarray:
    """The panorama turned so that a pair is in its middle, with both boxes, above the crops that the network sees.

    Args:
        image: the panorama, or None where it cannot be read.
        boxes: float `[2, 4]`.
        views: uint8 `[S, S, 3]`: first person, second person, both.
        title: a line between them.

    Returns:
        uint8 `[H, 640, 3]`.
    """
    parts = [] if image is None else [_turned(image, boxes)]
    side = STRIP_WIDTH // len(views)
    framed = [cv2.resize(v, (side, side), interpolation=cv2.INTER_LINEAR) for v in views]
    for view, tint in zip(framed, (FIRST, SECOND)):
        cv2.rectangle(view, (1, 1), (side - 2, side - 2), tint, 3)
    row = np.full((side, STRIP_WIDTH, 3), 255, np.uint8)
    row[:, : side * len(views)] = np.concatenate(framed, 1)
    line = np.full((26, STRIP_WIDTH, 3), 255, np.uint8)
    cv2.putText(line, fitted(title, STRIP_WIDTH - 12), (6, 18), FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([*parts, line, row], 0)


def _turned(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """At most 8 heights of panorama around the pair, 640 pixels wide."""
    height, width = image.shape[:2]
    centres = (boxes[:, 0] + boxes[:, 2]) / 2
    other = centres[1] + np.rint((centres[0] - centres[1]) / width) * width
    shown = min(width, 4 * height)
    left = int((centres[0] + other) / 2 - shown / 2)
    part = image.take(np.arange(left, left + shown) % width, axis=1)
    scale = STRIP_WIDTH / shown
    out = cv2.resize(part, (STRIP_WIDTH, round(height * scale)), interpolation=cv2.INTER_AREA)
    for (x1, y1, x2, y2), tint in zip(boxes, (FIRST, SECOND)):
        # its place in the part, by where its centre is nearest to the middle
        turn = np.rint((left + shown / 2 - (x1 + x2) / 2) / width) * width - left
        _rectangle(out, np.array([x1 + turn, y1, x2 + turn, y2]) * scale, tint)
    return out

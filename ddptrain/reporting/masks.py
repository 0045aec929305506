"""Classes of pixels as pictures. Images are uint8 `[H, W, 3]` RGB, labels uint8 `[H, W]` with `VOID` for none."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from ddptrain.reporting.pictures import GRAY, colour, tag
from ddptrain.structures import VOID

OPACITY = 0.55
ROW = 19
"""Height of a line of the legend in pixels."""


def palette(classes: int) -> np.ndarray:
    """uint8 `[256, 3]`: the colour of each class, gray behind them."""
    out = np.full((256, 3), GRAY, np.uint8)
    out[:classes] = [colour(k) for k in range(classes)]
    return out


def overlay(image: np.ndarray, labels: np.ndarray, names: Sequence[str], *, title: str = "", min_side: int = 320) -> np.ndarray:
    """A copy of an image under the colours of its classes, void hatched in gray, the names of the classes it shows in the
    corner.

    Args:
        min_side: the longer side of what is returned, in pixels, at least (in whole multiples of `image`).
    """
    factor = max(1, math.ceil(min_side / max(image.shape[:2])))
    out = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(labels, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    tinted = cv2.addWeighted(palette(len(names))[labels], OPACITY, out, 1 - OPACITY, 0)
    void = labels == VOID
    y, x = np.ogrid[: labels.shape[0], : labels.shape[1]]
    tinted[void] = out[void]
    tinted[void & ((x + y) % 12 < 3)] = GRAY
    counts = np.bincount(labels.ravel(), minlength=256)[: len(names)]
    shown = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())].tolist()
    lines = [(title, (255, 255, 255))] * bool(title) + [(names[k], colour(k)) for k in shown]
    for row, (text, back) in enumerate(lines[: tinted.shape[0] // ROW], 1):
        tag(tinted, text, 0, row * ROW, back)
    return tinted


def encode_labels(labels: np.ndarray, classes: int) -> bytes:
    """A PNG of the labels themselves, with a palette that shows them in colour."""
    image = Image.fromarray(labels)
    image.putpalette(palette(classes).tobytes())
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def decode_labels(data: bytes) -> np.ndarray:
    """The labels of such a PNG, uint8 `[H, W]`."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)

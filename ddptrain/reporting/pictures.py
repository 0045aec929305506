"""Boxes on images: what the network sees, and its predictions beside the truth. Images are uint8 `[H, W, 3]` RGB."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike

from ddptrain.errors import UserError
from ddptrain.system.files import write_bytes

GRAY = (160, 160, 160)
FONT = cv2.FONT_HERSHEY_SIMPLEX
LINE = 4
"""Width of the white line between two pictures, in pixels."""
SMALL = 24
"""Boxes with a side below this, in pixels, are drawn with a line of one pixel, larger ones of two."""


def colour(label: int) -> tuple[int, int, int]:
    """RGB of a class: neighbours in number are far apart in hue."""
    r, g, b = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.85 if label % 2 else 1.0, 1.0)
    return round(r * 255), round(g * 255), round(b * 255)


def draw(
    image: np.ndarray,
    boxes: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    *,
    scores: ArrayLike | None = None,
    ignore: ArrayLike = (),
    title: str = "",
    min_side: int = 640,
) -> np.ndarray:
    """A copy of an image with its boxes on it, enlarged so that names are legible.

    Where boxes are crowded, names that would hide another name or the middle of another box are left out.

    Args:
        image: uint8 `[H, W, C]`; of more than 3 channels the first 3 are shown, one is shown as gray.
        boxes: float `[n, 4]` in pixels of `image`.
        labels: int `[n]`, index into `names`.
        names: of the classes.
        scores: float `[n]` in 0..1, shown behind the name.
        ignore: float `[k, 4]`: ignore regions, hatched in gray.
        title: a line in the corner.
        min_side: the longer side of what is returned, in pixels, at least (in whole multiples of `image`).

    Returns:
        uint8 `[H * f, W * f, 3]`.
    """
    image = _three_channels(image)
    factor = max(1, math.ceil(min_side / max(image.shape[:2])))
    out = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    for box in _corners(ignore, out, factor):
        _hatch(out, box)
    corners = _corners(boxes, out, factor)
    labels = np.asarray(labels, np.int64).reshape(-1)
    for box, label in zip(corners, labels):
        wide = 2 if min(box[2] - box[0], box[3] - box[1]) >= SMALL else 1
        cv2.rectangle(out, box[:2], box[2:], colour(int(label)), wide, cv2.LINE_AA)
    _name(out, corners, [names[label] for label in labels], [colour(int(label)) for label in labels], scores)
    if title:
        tag(out, title, 0, 0, (255, 255, 255))
    return out


def _name(
    out: np.ndarray,
    corners: Sequence[Sequence[int]],
    names: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
    scores: ArrayLike | None,
) -> None:
    """Names above their boxes, in the order of these, after all boxes, so that none crosses them."""
    boxes = np.array(corners, np.int64).reshape(-1, 4)
    middle = (boxes[:, :2] + boxes[:, 2:]) // 2
    taken = np.zeros((0, 4), np.int64)
    for i, (name, back) in enumerate(zip(names, colours)):
        text = name if scores is None else f"{name} {np.asarray(scores)[i]:.2f}"
        place = np.array(_tag_box(out, text, corners[i][0], corners[i][1]))
        hidden = np.flatnonzero(((middle >= place[:2]) & (middle <= place[2:])).all(1))
        crossed = np.flatnonzero(((taken[:, :2] < place[2:]) & (taken[:, 2:] > place[:2])).all(1))
        if not (len(crossed) or np.setdiff1d(hidden, i).size):
            tag(out, text, corners[i][0], corners[i][1], back)
            taken = np.vstack([taken, place])


def beside(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Two drawn images of one size side by side, a white line between them."""
    line = np.full((truth.shape[0], LINE, 3), 255, np.uint8)
    return np.concatenate([truth, line, prediction], 1)


def grid(images: Sequence[np.ndarray], columns: int | None = None) -> np.ndarray:
    """Images on one sheet, padded in gray to the largest, white lines between them.

    Args:
        images: at least one, uint8 `[H, W, 3]`, sizes may differ.
        columns: default about as many as rows.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    height, width = max(i.shape[0] for i in images), max(i.shape[1] for i in images)
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * (height + LINE) - LINE, columns * (width + LINE) - LINE, 3), 255, np.uint8)
    for k in range(rows * columns):
        y, x = k // columns * (height + LINE), k % columns * (width + LINE)
        sheet[y : y + height, x : x + width] = 114
        for image in images[k : k + 1]:
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    return sheet


def save(path: Path, image: np.ndarray) -> None:
    """Write a PNG or JPEG, by its suffix, whole or not at all; makes the folder.

    Raises:
        OSError: it cannot be written.
        UserError: the name has another suffix.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"{path}: pictures are written as .png or .jpg; change the name")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, encode(image, path.suffix.lower()))


def load(path: Path) -> np.ndarray:
    """The picture in a file that `save` or a figure wrote, uint8 `[H, W, 3]` RGB."""
    return np.array(cv2.imread(str(path), cv2.IMREAD_COLOR))[..., ::-1]


def encode(image: np.ndarray, suffix: str) -> bytes:
    """The bytes of an image file; `suffix` is `.png` or `.jpg`."""
    return bytes(cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1])


def _three_channels(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., :1], 3, 2) if image.shape[2] < 3 else np.ascontiguousarray(image[..., :3])


def _corners(boxes: ArrayLike, out: np.ndarray, factor: int) -> list[list[int]]:
    """Whole pixels of the enlarged image, inside it, so that every side is seen."""
    scaled = np.nan_to_num(np.asarray(boxes, np.float64).reshape(-1, 4) * factor)
    height, width = out.shape[:2]
    last = [width - 1, height - 1, width - 1, height - 1]
    return scaled.clip(0, last).round().astype(int).tolist()


def _hatch(out: np.ndarray, box: list[int]) -> None:
    x1, y1, x2, y2 = box
    y, x = np.ogrid[y1:y2, x1:x2]
    part = out[y1:y2, x1:x2]
    part[(x + y) % 12 < 3] = GRAY
    cv2.rectangle(out, (x1, y1), (x2, y2), GRAY, 2)


def _tag_box(out: np.ndarray, text: str, x: int, y: int) -> tuple[int, int, int, int]:
    """Where `tag` puts its ground: (x1, y1, x2, y2)."""
    (w, h), base = cv2.getTextSize(text, FONT, 0.45, 1)
    w, h = w + 4, h + base + 2
    x = min(max(x, 0), max(out.shape[1] - w, 0))
    y = min(max(y - h, 0), max(out.shape[0] - h, 0))
    return x, y, x + w, y + h


def fitted(text: str, width: int) -> str:
    """The end of a text, as much as fits the width in pixels."""
    while len(text) > 3 and cv2.getTextSize(text, FONT, 0.45, 1)[0][0] + 4 > width:
        text = f"..{text[3 if text.startswith('..') else 2 :]}"
    return text


def tag(out: np.ndarray, text: str, x: int, y: int, back: tuple[int, int, int]) -> None:
    """Text on a coloured ground, above (x, y) where there is room, always inside the image; a long text is cut at its front."""
    text = fitted(text, out.shape[1])
    x1, y1, x2, y2 = _tag_box(out, text, x, y)
    cv2.rectangle(out, (x1, y1), (x2, y2), back, cv2.FILLED)
    base = cv2.getTextSize(text, FONT, 0.45, 1)[1]
    bright = 0.299 * back[0] + 0.587 * back[1] + 0.114 * back[2] > 128
    cv2.putText(out, text, (x1 + 2, y2 - base), FONT, 0.45, (0, 0, 0) if bright else (255, 255, 255), 1, cv2.LINE_AA)

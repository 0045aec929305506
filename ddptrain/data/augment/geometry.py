"""Geometry as one matrix: an image is warped once, from its native pixels to the network's, and its boxes with it.

Coordinates are continuous: pixel `i` covers `[i, i + 1)`, so boxes and matrices need no half-pixel corrections; `warp`
makes the one that OpenCV wants (there pixel `i` is the point `i`).
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ddptrain.config.data import AugmentConfig

BORDER = 114
"""Grey value outside the image."""
MIN_SIDE = 2.0
"""A warped box is kept when its clipped sides are longer than this, in pixels,"""
MIN_AREA_RATIO = 0.1
"""more than this share of its area is inside the image,"""
MAX_ASPECT = 100.0
"""and it is less elongated than this."""


def letterbox(native_size: tuple[int, int], size: int) -> np.ndarray:
    """Matrix that scales an image to fit a square, aspect kept, centred.

    Args:
        native_size: (width, height) of the image in pixels.
        size: side of the square in pixels.

    Returns:
        float64 `[3, 3]`. The shift is a whole number of pixels, so that it does not blur.
    """
    width, height = native_size
    scale = min(size / width, size / height)
    left, top = round((size - width * scale) / 2), round((size - height * scale) / 2)
    return np.array([[scale, 0, left], [0, scale, top], [0, 0, 1]], np.float64)


def random_affine(config: AugmentConfig, size: int, affine: np.random.Generator, flip: np.random.Generator) -> np.ndarray:
    """Draw a matrix from the letterboxed square to itself: zoom, shear, rotate about the centre, then shift, then flip.

    Every draw is made whatever the config, so that one option does not change the draws of another.

    Args:
        size: side of the square in pixels.
        affine: generator of zoom, rotation, shear and shift.
        flip: generator of the flips.

    Returns:
        float64 `[3, 3]`; exactly the identity when all of the config's ranges are 0.
    """
    zoom, turn, shear_x, shear_y, x, y = affine.uniform(-1, 1, 6)
    left_right, upside_down = flip.random(2)
    angle = math.radians(turn * config.rotate)
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    shear = np.eye(3)
    shear[0, 1] = math.tan(math.radians(shear_x * config.shear))
    shear[1, 0] = math.tan(math.radians(shear_y * config.shear))
    scale = 1 + zoom * config.scale
    matrix = _shift(size / 2 + x * config.translate * size, size / 2 + y * config.translate * size)
    matrix = matrix @ rotation @ shear @ np.diag([scale, scale, 1.0]) @ _shift(-size / 2, -size / 2)
    if left_right < config.hflip:
        matrix = np.array([[-1.0, 0, size], [0, 1, 0], [0, 0, 1]]) @ matrix
    if upside_down < config.vflip:
        matrix = np.array([[1.0, 0, 0], [0, -1, size], [0, 0, 1]]) @ matrix
    return matrix


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """The image under `matrix`, in a square with a grey border.

    Bilinear sampling looks at 2 x 2 pixels and would skip the rest where an image shrinks by more than 2: small objects
    would flicker in and out. So the image is first halved by exact 2 x 2 means (OpenCV's fastest resize) until the rest
    of the way is a factor between 0.5 and 1.

    Args:
        image: uint8 `[H, W, C]`, C <= 4.
        matrix: float `[3, 3]` from pixels of `image` to pixels of the result.
        size: side of the result in pixels.

    Returns:
        uint8 `[size, size, C]`.
    """
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))
    while scale <= 0.5 and min(image.shape[:2]) > 1:
        image, matrix, scale = _halve(image), matrix @ np.diag([2.0, 2.0, 1.0]), scale * 2
    centres = _shift(-0.5, -0.5) @ matrix @ _shift(0.5, 0.5)
    return cv2.warpAffine(image, centres[:2], (size, size), flags=cv2.INTER_LINEAR, borderValue=(BORDER,) * 4)


def _halve(image: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels; an odd last row or column counts twice."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return cv2.resize(image, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes under `matrix`: each the smallest upright box around its four moved corners, clipped to the square.

    Args:
        boxes: float `[n, 4]`.
        matrix: float `[3, 3]` from the boxes' pixels to the result's.
        size: side of the square in pixels.

    Returns:
        float32 `[n, 4]`, clipped to 0..size, and bool `[n]`: which of them still show enough of the object to be
        learned (`MIN_SIDE`, `MIN_AREA_RATIO`, `MAX_ASPECT`).
    """
    corners = boxes.astype(np.float64)[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    corners = corners @ matrix[:2, :2].T + matrix[:2, 2]
    whole = np.concatenate([corners.min(1), corners.max(1)], 1)
    clipped = whole.clip(0, size)
    w, h = (clipped[:, 2:] - clipped[:, :2]).T
    kept = (w > MIN_SIDE) & (h > MIN_SIDE)
    kept &= w * h > MIN_AREA_RATIO * (whole[:, 2] - whole[:, 0]) * (whole[:, 3] - whole[:, 1])
    kept &= np.maximum(w, h) < MAX_ASPECT * np.minimum(w, h)
    return clipped.astype(np.float32), kept

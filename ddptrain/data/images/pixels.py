"""Images in memory, and their exact halves: JPEGs are decoded at half size, and what remains is averaged."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np


class Pixels(NamedTuple):
    """An image as it was read.

    Attributes:
        values: uint8 `[H, W, C]`.
        size: (width, height) of the file in pixels.
        halved: how often both sides were halved while it was read, rounded up: pixel `i` covers those of the file from
            `i * 2**halved` on.
    """

    values: np.ndarray
    size: tuple[int, int]
    halved: int = 0

    @classmethod
    def of(cls, image: np.ndarray | Pixels) -> Pixels:
        """An image `[H, W, C]` in the size of its file."""
        return image if isinstance(image, Pixels) else cls(image, size_of(image))


def size_of(image: np.ndarray) -> tuple[int, int]:
    """(width, height) of an image `[H, W, …]` in pixels."""
    return image.shape[1], image.shape[0]


def halvings(scale: float) -> int:
    """How often an image that is shown at a scale can be halved before what remains would enlarge it."""
    return max(0, math.floor(-math.log2(scale)))


def halve(image: np.ndarray, times: int) -> np.ndarray:
    """Means of 2 x 2 pixels, `times` over; the last row and column are repeated until the sides are divisible."""
    if times <= 0:
        return image
    step = 2**times
    down, right = -image.shape[0] % step, -image.shape[1] % step
    channels = image.shape[2]
    if down or right:
        image = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE)
    for _ in range(times):
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return image.reshape(image.shape[0], image.shape[1], channels)

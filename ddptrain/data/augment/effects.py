"""What cameras and storage do to the pixels of an image: no colour, a blur, the losses of JPEG; and a part that is hidden."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from ddptrain.config.data import AugmentConfig
from ddptrain.seeding import rng

CUT_AREA = (0.02, 0.2)
"""Smallest and largest part of the square that a cutout hides."""
CUT_ASPECT = 3.0
"""Its sides differ by this factor at most."""
COVERED = 0.6
"""An object of whose box more than this is hidden, by a cutout or by another image, is neither an object nor background:
what is left of its box becomes an ignore region."""


class Effects(NamedTuple):
    """What is drawn for one image.

    Attributes:
        grey: without colour.
        sigma: of a Gaussian blur, in pixels; 0 for none.
        quality: of a JPEG, 1 to 100; 0 for none.
    """

    grey: bool = False
    sigma: float = 0.0
    quality: int = 0

    @classmethod
    def draw(cls, config: AugmentConfig, seed: int, position: int, layer: str) -> Effects:
        """A function of its arguments; see `ImageView.draw`. What has no chance costs no draw."""
        grey, sigma, quality = False, 0.0, 0
        if config.grey:
            grey = rng(seed, position, f"grey{layer}").random() < config.grey
        if config.blur:
            generator = rng(seed, position, f"blur{layer}")
            sigma = generator.uniform(*config.blur_sigma) if generator.random() < config.blur else 0.0
        if config.jpeg:
            generator = rng(seed, position, f"jpeg{layer}")
            low, high = config.jpeg_quality
            quality = int(generator.integers(low, high + 1)) if generator.random() < config.jpeg else 0
        return cls(grey, sigma, quality)

    def on(self, image: np.ndarray) -> np.ndarray:
        """uint8 `[H, W, 3]`, RGB, of such an image; the image itself where nothing is drawn."""
        if self.grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if self.sigma:
            image = cv2.GaussianBlur(image, (0, 0), self.sigma)
        if self.quality:
            stored = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, self.quality))[1]
            image = cv2.cvtColor(np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
        return image


def random_cut(probability: float, size: int, generator: np.random.Generator) -> np.ndarray | None:
    """Draw a rectangle of the square that is hidden (random erasing, arXiv 1708.04896), or None.

    Args:
        size: side of the square in pixels.

    Returns:
        int64 `[4]`, x1, y1, x2, y2; all of it is inside the square.
    """
    chance, area, aspect, x, y = generator.random(5).tolist()
    if chance >= probability:
        return None
    low, high = CUT_AREA
    side = size * math.sqrt(low + (high - low) * area)
    stretch = CUT_ASPECT ** (aspect - 0.5)
    width, height = (min(size, max(1, round(length))) for length in (side * stretch, side / stretch))
    left, top = round(x * (size - width)), round(y * (size - height))
    return np.array([left, top, left + width, top + height])

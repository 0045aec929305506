"""Colour: gains on hue, saturation and brightness by look-up tables."""

from __future__ import annotations

import cv2
import numpy as np

_LEVELS = np.arange(256, dtype=np.float64)


def adjust_hsv(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Multiply hue (modulo a full turn), saturation and brightness (both clipped).

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        gains: float `[3]`, >= 0, for hue, saturation and brightness.

    Returns:
        uint8 `[H, W, 3]`, RGB; `image` itself when all gains are 1 (8-bit HSV does not come back exactly).
    """
    if (gains == 1).all():
        return image
    # OpenCV's 8-bit hue counts half degrees, 0..179
    hue = (_LEVELS * gains[0]) % 180
    saturation, value = (_LEVELS * gains[1]).clip(0, 255), (_LEVELS * gains[2]).clip(0, 255)
    table = np.stack([hue, saturation, value], -1).astype(np.uint8)[None]
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB)

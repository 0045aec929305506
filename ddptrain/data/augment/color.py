"""Colour: gains on hue, saturation and brightness by look-up tables."""

import cv2
import numpy as np

from ddptrain.config.data import AugmentConfig

_LEVELS = np.arange(256, dtype=np.float64)


def random_gains(config: AugmentConfig, generator: np.random.Generator) -> np.ndarray:
    """Draw the gains for `adjust_hsv`, float64 `[3]`."""
    return 1 + generator.uniform(-1, 1, 3) * (config.hsv_h, config.hsv_s, config.hsv_v)


def adjust_hsv(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Multiply hue (modulo a full turn), saturation and brightness (both clipped).

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        gains: float `[3]`, >= 0, for hue, saturation and brightness.

    Returns:
        uint8 `[H, W, 3]`, RGB; `image` itself when all gains are 1 (8-bit HSV does not come back exactly).
    """
    if (gains == 1).all() or not image.size:
        return image
    # OpenCV's 8-bit hue counts half degrees, 0..179
    tables = ((_LEVELS * gains[0]) % 180, (_LEVELS * gains[1]).clip(0, 255), (_LEVELS * gains[2]).clip(0, 255))
    planes = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    hsv = cv2.merge([cv2.LUT(plane, table.astype(np.uint8)) for plane, table in zip(planes, tables)])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

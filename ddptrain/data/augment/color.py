"""Colour: gains on hue, saturation and brightness, as one matrix and one weighted sum."""

import math

import cv2
import numpy as np

from ddptrain.config.data import AugmentConfig


def random_gains(config: AugmentConfig, generator: np.random.Generator) -> np.ndarray:
    """Draw the gains for `tint`, float64 `[3]`."""
    return 1 + generator.uniform(-1, 1, 3) * (config.hsv_h, config.hsv_s, config.hsv_v)


def tint(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Turn the hue, and multiply saturation and brightness as they are in HSV: the brightness of a pixel is its largest channel
    V, its saturation the distance of the others from V. Each channel is clipped to 0..255.

    Going to 8-bit HSV and back takes four times as long, and its hue has steps of 2 degrees.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        gains: float `[3]`, >= 0: the hue is turned by the first one less 1, in turns of the colour circle, about the axis of
            greys; the others multiply.

    Returns:
        uint8 `[H, W, 3]`, RGB; `image` itself when all gains are 1.
    """
    hue, saturation, brightness = gains.tolist()
    if not image.size:
        return image
    if hue != 1:
        image = cv2.transform(image, _turn(2 * math.pi * (hue - 1)))
    if saturation == 1 and brightness == 1:
        return image
    red, green, blue = cv2.split(image)
    largest = cv2.cvtColor(cv2.max(cv2.max(red, green), blue), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, brightness * saturation, largest, brightness * (1 - saturation), 0)


def _turn(angle: float) -> np.ndarray:
    """Float32 `[3, 3]`: the turn of RGB about the axis of greys that takes red to green to blue to red by thirds."""
    cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
    grey = (1 - cos) / 3
    return np.array(
        [
            [cos + grey, grey - sin, grey + sin],
            [grey + sin, cos + grey, grey - sin],
            [grey - sin, grey + sin, cos + grey],
        ],
        np.float32,
    )

"""The sizes of the network's input that multi-scale training draws from."""

from __future__ import annotations

import math

SMALLEST = 32
"""Pixels."""
MultiScale = float | tuple[int, int]
"""A part of data.image_size by which the size may differ from it; or the smallest and the largest size in pixels."""


def input_sides(multi_scale: MultiScale, image_size: int, stride: int) -> range:
    """All sides of the input, in pixels, each as likely: multiples of the coarsest stride, from `SMALLEST` on.

    Raises:
        ValueError: one end lies beside that grid or below `SMALLEST`, or there is only one size.
    """
    key, grid = "data.augment.multi_scale", f"multiples of {stride} (the coarsest of model.strides)"
    if isinstance(multi_scale, tuple):
        low, high = multi_scale
        for end in (low, high):
            if end < SMALLEST or end % stride:
                raise ValueError(
                    f"{key}: {end} pixels: must be two {grid}, ≥ {SMALLEST}, such as {_example(image_size, stride)}"
                )
    else:
        if multi_scale == 0:
            return range(image_size, image_size + 1)
        least, most = image_size * (1 - multi_scale), image_size * (1 + multi_scale)
        low, high = -int(-least // stride) * stride, int(most // stride) * stride
        if least < SMALLEST:
            allowed = math.floor(100 * (1 - SMALLEST / image_size)) / 100
            line = f"{key}: {multi_scale:g} of data.image_size={image_size} goes down to {least:g} pixels"
            raise ValueError(f"{line}; sizes are ≥ {SMALLEST}, so give {allowed:g} at most, or 0")
    if low >= high:
        raise ValueError(
            f"{key}: from {low} to {high} pixels there is only one size or none; sizes are {grid}, so give a wider range, "
            f"such as {_example(image_size, stride)}"
        )
    return range(low, high + 1, stride)


def _example(image_size: int, stride: int) -> list[int]:
    """About half and one and a half times the size, two multiples of the stride that are allowed."""
    low = max(-(-SMALLEST // stride), image_size // 2 // stride)
    return [low * stride, max(low + 1, 3 * image_size // 2 // stride) * stride]

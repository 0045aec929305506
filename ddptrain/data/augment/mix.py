"""Several images in one: mosaic (arXiv 2004.10934), mixup (arXiv 1710.09412) and cutmix (arXiv 1905.04899)."""

from collections.abc import Sequence

import numpy as np

from ddptrain.data.augment.geometry import scale_and_shift

MIXUP_BETA = 32.0
"""Both parameters of the beta distribution of the weight with which detection blends two images: nearly half of each."""


def random_mosaic(native_sizes: Sequence[tuple[int, int]], size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Draw where four or nine images lie beside each other.

    Args:
        native_sizes: (width, height) of each image in pixels.
        size: side of the square in pixels.

    Returns:
        Of each image float64 `[3, 3]`. Four are scaled to fit the square, and each has a corner at the drawn point in it: they
        lie to its top left, top right, bottom left and bottom right. Of nine, the first is scaled to half the square's side
        and drawn within the square; the others are scaled to fit cells of its size around it, row by row.
    """
    if len(native_sizes) == 9:
        return _nine(native_sizes, size, generator.random(2))
    x, y = generator.uniform(0, size, 2).tolist()
    places = []
    for number, (width, height) in enumerate(native_sizes):
        scale = min(size / width, size / height)
        left = x if number % 2 else x - width * scale
        top = y if number // 2 else y - height * scale
        places.append(scale_and_shift(scale, left, top))
    return places


def _nine(native_sizes: Sequence[tuple[int, int]], size: int, place: np.ndarray) -> list[np.ndarray]:
    """`random_mosaic` of nine, each of which touches the middle cell's lines; `place`, 0..1: where in the square that is."""
    cell = np.array(native_sizes[0]) * (size / 2 / max(native_sizes[0]))
    corner = place * (size - cell)
    places = []
    for number, (width, height) in zip((4, 0, 1, 2, 3, 5, 6, 7, 8), native_sizes):
        row_column = np.array([number % 3, number // 3])
        scale = float((cell / (width, height)).min())
        rest = cell - scale * np.array([width, height])
        left, top = corner + (row_column - 1) * cell + rest * (1 - row_column / 2)
        places.append(scale_and_shift(scale, left, top))
    return places


def part_box(part: float, centre: np.ndarray, size: int) -> np.ndarray:
    """Int64 `[4]`: the rectangle about a point, clipped to a square, that would leave this part of the square."""
    half = size * (1 - part) ** 0.5 / 2
    return np.concatenate([centre - half, centre + half]).clip(0, size).round().astype(np.int64)


def random_mix(
    mixup: float, cutmix: float, alpha: float, size: int, generator: np.random.Generator
) -> tuple[float, np.ndarray] | None:
    """Draw whether and how a second image is mixed into one of a class.

    Args:
        mixup, cutmix: the probability of each.
        alpha: both parameters of the beta distribution of the first image's part.
        size: side of both images in pixels.

    Returns:
        The first image's part, 0 to 1, and int64 `[4]`, the box into which the second one is pasted, empty for mixup; or
        None for neither.
    """
    which, centre = generator.random(), generator.random(2) * size
    part, box = generator.beta(alpha, alpha), np.zeros(4, np.int64)
    if which >= cutmix + mixup:
        return None
    if which < cutmix:
        box = part_box(part, centre, size)
        part = 1 - (box[2] - box[0]) * (box[3] - box[1]) / size**2
    return part, box

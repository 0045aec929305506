"""Geometry as one matrix: an image is warped once, from its native pixels to the network's, and its boxes with it.

Coordinates are continuous: pixel `i` covers `[i, i + 1)`, so boxes and matrices need no half-pixel corrections; `warp`
makes the one that OpenCV needs (there pixel `i` is the point `i`). A matrix takes (x, y, 1) to (u, v, w), which is the point
(u / w, v / w); without perspective w is 1.
"""

import math

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
NEAR = 0.1
"""Seen in perspective, what is enlarged by more than one over this is cut off: it lies far outside the square."""


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
    return scale_and_shift(scale, left, top)


def scale_and_shift(scale: float, left: float, top: float) -> np.ndarray:
    """Float64 `[3, 3]`: (x, y) goes to (scale x + left, scale y + top)."""
    return np.array([[scale, 0, left], [0, scale, top], [0, 0, 1]], np.float64)


def random_window(native_size: tuple[int, int], size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a matrix that puts an image, at its own scale, behind a square, so that the square sees as much of it as it can.

    Args:
        native_size: (width, height) of the image in pixels.
        size: side of the square in pixels.

    Returns:
        float64 `[3, 3]`; the shift is a whole number of pixels.
    """
    matrix = np.eye(3)
    matrix[:2, 2] = np.rint((size - np.array(native_size)) * generator.random(2))
    return matrix


def random_affine(config: AugmentConfig, size: int, generator: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Draw a matrix from the letterboxed square to itself: shear, turn and zoom about the centre, then shift, then flip.

    All numbers are drawn whatever the config, so that one option does not change the draws of another.

    Args:
        size: side of the square in pixels.

    Returns:
        float64 `[3, 3]`, exactly the identity when all of the config's ranges are 0; and whether it flips left and right.
    """
    zoom, turn, shear_x, shear_y, x, y = generator.uniform(-1, 1, 6).tolist()
    left_right, upside_down = generator.random(2).tolist()
    angle, scale = math.radians(turn * config.rotate), 1 + zoom * config.scale
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    shear_x, shear_y = (math.tan(math.radians(s * config.shear)) for s in (shear_x, shear_y))
    # rotation times shear, row by row: (x, y) goes to (a x + b y + c, d x + e y + f)
    rows = [[cos - sin * shear_y, cos * shear_x - sin], [sin + cos * shear_y, sin * shear_x + cos]]
    flips = left_right < config.hflip, upside_down < config.vflip
    matrix = np.eye(3)
    for axis, (shift, flip) in enumerate(zip((x, y), flips)):
        on_x, on_y = rows[axis]
        offset = size / 2 + shift * config.translate * size - (on_x + on_y) * (size / 2)
        matrix[axis] = (-on_x, -on_y, size - offset) if flip else (on_x, on_y, offset)
    return matrix, flips[0]


def random_turn(probability: float, size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a turn of the square about its centre by 90, 180 or 270 degrees, float64 `[3, 3]`; else the identity."""
    turns = int(generator.integers(1, 4)) if generator.random() < probability else 0
    quarter = np.array([[0, -1, size], [1, 0, 0], [0, 0, 1]], np.float64)
    return np.linalg.matrix_power(quarter, turns)


def random_perspective(most: float, size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw how a square is seen at an angle: along each axis the scale at its two ends becomes 1 - k and 1 + k times that at
    its centre, which stays.

    Args:
        most: k is drawn from ± this, < 0.5, so that all of the square stays in front of the eye.
        size: side of the square in pixels.

    Returns:
        float64 `[3, 3]` from the square to itself.
    """
    centre = size / 2
    matrix = np.eye(3)
    matrix[2, :2] = generator.uniform(-most, most, 2) / centre
    return scale_and_shift(1, centre, centre) @ matrix @ scale_and_shift(1, -centre, -centre)


def in_perspective(matrix: np.ndarray) -> bool:
    """Whether parallel lines may meet under a matrix."""
    return bool(matrix[2, 0] or matrix[2, 1])


def outline(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Float64 `[n, 8, 2]`: the corners of boxes `[n, 4]` under `matrix`, in their order around each box, and between two of
    them the point at which the box is cut off (see `NEAR`); nan for what is cut off, and where nothing is."""
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] @ matrix[:, :2].T + matrix[:, 2]
    beyond = np.roll(corners, -1, 1) - corners
    front = corners[..., 2] > NEAR
    crossed = front != np.roll(front, -1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cuts = corners + beyond * ((NEAR - corners[..., 2]) / beyond[..., 2])[..., None]
        points = np.stack([corners, cuts], 2).reshape(-1, 8, 3)
        points = points[..., :2] / points[..., 2:]
    points[~np.stack([front, crossed], 2).reshape(-1, 8)] = np.nan
    return points


def enclose(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Float64 `[n, 4]`: for each box the smallest upright one around its four corners under `matrix`."""
    corners = boxes.astype(np.float64)
    if in_perspective(matrix):
        points = outline(corners, matrix)
        low, high = (f(points, axis=1, initial=e, where=~np.isnan(points)) for f, e in ((np.min, np.inf), (np.max, -np.inf)))
        # of what is cut off as a whole nothing is left
        return np.where(low[:, :1] <= high[:, :1], np.concatenate([low, high], 1), -1.0)
    centre = (corners[:, :2] + corners[:, 2:]) @ (matrix[:2, :2].T / 2) + matrix[:2, 2]
    half = (corners[:, 2:] - corners[:, :2]) @ np.abs(matrix[:2, :2].T / 2)
    return np.concatenate([centre - half, centre + half], 1)


def transform_boxes(
    boxes: np.ndarray, matrix: np.ndarray, size: int, window: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes under `matrix` (see `enclose`), clipped to the square.

    Args:
        boxes: float `[n, 4]`.
        matrix: float `[3, 3]` from the boxes' pixels to the result's.
        size: side of the square in pixels.
        window: int `[4]`: the part of the square that shows them, where it is not all.

    Returns:
        float32 `[n, 4]`, clipped to 0..size or the window, and bool `[n]`: which of them still show enough of the object to be
        learned (`MIN_SIDE`, `MIN_AREA_RATIO`, `MAX_ASPECT`).
    """
    whole = enclose(boxes, matrix)
    clipped = whole.clip(0, size) if window is None else whole.clip(np.tile(window[:2], 2), np.tile(window[2:], 2))
    w, h = (clipped[:, 2:] - clipped[:, :2]).T
    kept = (w > MIN_SIDE) & (h > MIN_SIDE)
    kept &= w * h > MIN_AREA_RATIO * (whole[:, 2] - whole[:, 0]) * (whole[:, 3] - whole[:, 1])
    kept &= np.maximum(w, h) < MAX_ASPECT * np.minimum(w, h)
    return clipped.astype(np.float32), kept


def left_of(boxes: np.ndarray, part: np.ndarray) -> np.ndarray:
    """What a rectangle `[4]` leaves of boxes `[n, 4]`: the box around the rest, without area where nothing is left."""
    rest = boxes.copy()
    for axis in (0, 1):
        across = (part[1 - axis] <= boxes[:, 1 - axis]) & (boxes[:, 3 - axis] <= part[3 - axis])
        low, high = boxes[:, axis], boxes[:, 2 + axis]
        from_low = across & (part[axis] <= low)
        to_high = across & (part[2 + axis] >= high)
        rest[:, axis] = np.where(from_low, np.clip(part[2 + axis], low, high), low)
        rest[:, 2 + axis] = np.where(to_high & ~from_low, np.clip(part[axis], low, high), high)
    return rest


def covered(boxes: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Float `[n]`, 0..1: how much of the area of each box `[n, 4]` lies in a rectangle `[4]`."""
    inside = (np.minimum(boxes[:, 2:], part[2:]) - np.maximum(boxes[:, :2], part[:2])).clip(0).prod(1)
    return inside / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-9)

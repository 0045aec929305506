"""Geometry as one matrix: an image is warped once, from its native pixels to the network's, and its boxes with it.

Coordinates are continuous: pixel `i` covers `[i, i + 1)`, so boxes and matrices need no half-pixel corrections; `warp`
makes the one that OpenCV needs (there pixel `i` is the point `i`).
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from ddptrain.config.data import AugmentConfig
from ddptrain.data.images.pixels import Pixels, halve, halvings

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


def random_affine(config: AugmentConfig, size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a matrix from the letterboxed square to itself: shear, turn and zoom about the centre, then shift, then flip.

    All numbers are drawn whatever the config, so that one option does not change the draws of another.

    Args:
        size: side of the square in pixels.

    Returns:
        float64 `[3, 3]`; exactly the identity when all of the config's ranges are 0.
    """
    zoom, turn, shear_x, shear_y, x, y = generator.uniform(-1, 1, 6).tolist()
    left_right, upside_down = generator.random(2).tolist()
    angle, scale = math.radians(turn * config.rotate), 1 + zoom * config.scale
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    shear_x, shear_y = (math.tan(math.radians(s * config.shear)) for s in (shear_x, shear_y))
    # rotation times shear, row by row: (x, y) goes to (a x + b y + c, d x + e y + f)
    rows = [[cos - sin * shear_y, cos * shear_x - sin], [sin + cos * shear_y, sin * shear_x + cos]]
    matrix = np.eye(3)
    for axis, (shift, flip) in enumerate([(x, left_right < config.hflip), (y, upside_down < config.vflip)]):
        on_x, on_y = rows[axis]
        offset = size / 2 + shift * config.translate * size - (on_x + on_y) * (size / 2)
        matrix[axis] = (-on_x, -on_y, size - offset) if flip else (on_x, on_y, offset)
    return matrix


class Patch(NamedTuple):
    """The part of the square that a warped image covers; around it there is only border.

    Attributes:
        pixels: uint8 `[h, w, C]`.
        left: its first column in the square.
        top: its first row in the square.
        matrix: float64 `[3, 3]`, the one that was used, from pixels of the file to pixels of the square.
    """

    pixels: np.ndarray
    left: int
    top: int
    matrix: np.ndarray

    def on_square(self, size: int) -> np.ndarray:
        """uint8 `[size, size, C]` with the patch on a grey ground."""
        square = np.full((size, size, self.pixels.shape[2]), BORDER, np.uint8)
        self.onto(square)
        return square

    def onto(self, square: np.ndarray, native_size: tuple[int, int] | None = None) -> None:
        """Put the patch on a square, in place.

        Args:
            square: uint8 `[size, size, C]`.
            native_size: (width, height) of the file in pixels: of a patch that is turned or sheared, put there only the image
                itself, without its border.
        """
        height, width = self.pixels.shape[:2]
        part = square[self.top : self.top + height, self.left : self.left + width]
        if native_size is None or _upright(self.matrix):
            part[:] = self.pixels
            return
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * native_size @ self.matrix[:2, :2].T + self.matrix[:2, 2]
        inside = np.zeros((height, width), np.uint8)
        # in sixteenths of a pixel; OpenCV's pixel i is the point i
        places = np.rint((corners - (self.left, self.top) - 0.5) * 16).astype(np.int32)
        cv2.fillConvexPoly(inside, places, 1, shift=4)
        np.copyto(part, self.pixels, where=inside[..., None].astype(bool))


def warp(image: np.ndarray | Pixels, matrix: np.ndarray, size: int) -> Patch:
    """The image under `matrix`, as far as it reaches into a square; later steps can skip the border.

    Bilinear sampling reads 2 x 2 pixels and would skip others where an image shrinks by more than 2: small objects would
    flicker. So the image is first halved by exact 2 x 2 means (OpenCV's fastest resize) until the remaining factor is
    between 0.5 and 1.

    The edges of an image that is neither turned nor sheared, and of the part of it that the square shows, are moved to whole
    pixels, by half a pixel at most. Then they are sharp, and the warp is a plain resize of that part, some three times as fast.

    Args:
        image: uint8 `[H, W, C]`, C <= 4.
        matrix: float64 `[3, 3]` from pixels of the file to pixels of the square.
        size: side of the square in pixels.
    """
    values, native_size, halved = Pixels.of(image)
    times = max(halved, halvings(_scale(matrix)))
    if _upright(matrix):
        return _resized(values, native_size, matrix, size, times, halved)
    values = halve(values, times - halved)
    to_square = matrix @ np.diag([2.0**times, 2.0**times, 1.0])
    height, width, channels = values.shape
    # sampling mixes image and border within half a pixel of the image's edge
    reach = enclose(np.array([[-0.5, -0.5, width + 0.5, height + 0.5]]), to_square)[0]
    left, top = (int(v) for v in np.floor(reach[:2]).clip(0, size))
    right, bottom = (int(v) for v in np.ceil(reach[2:]).clip(0, size))
    if right <= left or bottom <= top:
        return Patch(np.empty((0, 0, channels), np.uint8), 0, 0, matrix)
    centres = scale_and_shift(1, -0.5 - left, -0.5 - top) @ to_square @ scale_and_shift(1, 0.5, 0.5)
    window = (right - left, bottom - top)
    pixels = cv2.warpAffine(values, centres[:2], window, flags=cv2.INTER_LINEAR, borderValue=(BORDER,) * 4)
    return Patch(pixels.reshape(bottom - top, right - left, channels), left, top, matrix)


def _resized(values: np.ndarray, native_size: tuple[int, int], matrix: np.ndarray, size: int, times: int, halved: int) -> Patch:
    """`warp` of an upright image, of which nothing is halved or resized but what the square shows."""
    used, step, beyond = np.eye(3), 2**times, 2 ** (times - halved)
    spans = []
    for axis, length in enumerate(native_size):
        scale, shift = float(matrix[axis, axis]), float(matrix[axis, 2])
        span = _span(-(-length // step), scale * step, shift, size)
        spans.append(span)
        used[axis, axis], used[axis, 2] = span.scale / step, span.shift
    x, y = spans
    if min(x.shown[1] - x.shown[0], y.shown[1] - y.shown[0]) <= 0:
        return Patch(np.empty((0, 0, values.shape[2]), np.uint8), 0, 0, used)
    (left, right), (top, bottom) = ((v * beyond for v in span.source) for span in spans)
    part = halve(values[top:bottom, left:right], times - halved)
    pixels = cv2.resize(part, (x.target[1] - x.target[0], y.target[1] - y.target[0]), interpolation=cv2.INTER_LINEAR)
    for axis, span in ((1, x), (0, y)):
        if span.scale < 0:
            pixels = cv2.flip(pixels, axis)
    pixels = pixels[y.shown[0] - y.target[0] : y.shown[1] - y.target[0], x.shown[0] - x.target[0] : x.shown[1] - x.target[0]]
    return Patch(pixels.reshape(*pixels.shape[:2], values.shape[2]), x.shown[0], y.shown[0], used)


class _Span(NamedTuple):
    """Along one axis: the pixels `source[0]` to `source[1]` of an image become `target[0]` to `target[1]` of the square, of
    which it shows those of `shown`. The scale is negative where they are mirrored."""

    source: tuple[int, int]
    target: tuple[int, int]
    shown: tuple[int, int]
    scale: float
    shift: float


def _span(length: int, scale: float, shift: float, size: int) -> _Span:
    """What a square of `size` shows of `length` pixels that go from x to `scale * x + shift`, moved to whole pixels."""
    zoom = abs(scale)
    low = shift if scale > 0 else shift - zoom * length

    def between(first: int, last: int) -> tuple[int, int]:
        start = round(low + first * zoom)
        return start, max(round(low + last * zoom), start + 1)

    target = between(0, length)
    shown = min(max(target[0], 0), size), min(max(target[1], 0), size)
    first, last = 0, length
    if shown[0] < shown[1]:
        # one more at each side than is seen, for bilinear sampling
        first = max(0, math.floor((shown[0] - low) / zoom) - 1)
        last = min(length, math.ceil((shown[1] - low) / zoom) + 1)
        target = between(first, last)
    zoom = (target[1] - target[0]) / (last - first)
    if scale > 0:
        return _Span((first, last), target, shown, zoom, target[0] - first * zoom)
    return _Span((length - last, length - first), target, shown, -zoom, target[0] + (length - first) * zoom)


def warp_nearest(values: np.ndarray, matrix: np.ndarray, size: int | tuple[int, int], outside: int = 0) -> np.ndarray:
    """Values that must not be mixed, under `matrix`: each pixel of the result takes the nearest one.

    Args:
        values: uint8 `[H, W]`.
        matrix: float64 `[3, 3]` from pixels of `values` to pixels of the result.
        size: side of a square result in pixels, or its width and height.
        outside: the value around them.
    """
    window = (size, size) if isinstance(size, int) else size
    centres = scale_and_shift(1, -0.5, -0.5) @ matrix @ scale_and_shift(1, 0.5, 0.5)
    return cv2.warpAffine(values, centres[:2], window, flags=cv2.INTER_NEAREST, borderValue=(outside,))


def _upright(matrix: np.ndarray) -> bool:
    """Whether a matrix neither turns nor shears."""
    return not (matrix[0, 1] or matrix[1, 0])


def _scale(matrix: np.ndarray) -> float:
    return math.sqrt(abs(float(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])))


def enclose(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Float64 `[n, 4]`: for each box the smallest upright one around its four corners under `matrix`."""
    corners = boxes.astype(np.float64)
    centre = (corners[:, :2] + corners[:, 2:]) @ (matrix[:2, :2].T / 2) + matrix[:2, 2]
    half = (corners[:, 2:] - corners[:, :2]) @ np.abs(matrix[:2, :2].T / 2)
    return np.concatenate([centre - half, centre + half], 1)


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes under `matrix` (see `enclose`), clipped to the square.

    Args:
        boxes: float `[n, 4]`.
        matrix: float `[3, 3]` from the boxes' pixels to the result's.
        size: side of the square in pixels.

    Returns:
        float32 `[n, 4]`, clipped to 0..size, and bool `[n]`: which of them still show enough of the object to be
        learned (`MIN_SIDE`, `MIN_AREA_RATIO`, `MAX_ASPECT`).
    """
    whole = enclose(boxes, matrix)
    clipped = whole.clip(0, size)
    w, h = (clipped[:, 2:] - clipped[:, :2]).T
    kept = (w > MIN_SIDE) & (h > MIN_SIDE)
    kept &= w * h > MIN_AREA_RATIO * (whole[:, 2] - whole[:, 0]) * (whole[:, 3] - whole[:, 1])
    kept &= np.maximum(w, h) < MAX_ASPECT * np.minimum(w, h)
    return clipped.astype(np.float32), kept

"""One warp: the pixels of an image under one matrix, and values of pixels, such as classes and depth, with them."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from ddptrain.data.augment.geometry import BORDER, enclose, in_perspective, outline, scale_and_shift
from ddptrain.data.images.pixels import Pixels, halve, halvings

_SWAPPED = [1, 0, 2]
"""The rows of a matrix in the order that swaps the axes of what it gives."""


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
        if native_size is None or _upright(self.matrix) or _upright(self.matrix[_SWAPPED]):
            part[:] = self.pixels
            return
        corners = outline(np.array([[0, 0, *native_size]]), self.matrix)[0]
        corners = corners[~np.isnan(corners[:, 0])]
        inside = np.zeros((height, width), np.uint8)
        # in sixteenths of a pixel; OpenCV's pixel i is the point i
        places = np.rint((corners - (self.left, self.top) - 0.5) * 16).astype(np.int32)
        cv2.fillConvexPoly(inside, places, 1, shift=4)
        np.copyto(part, self.pixels, where=inside[..., None].astype(bool))


def warp(image: np.ndarray | Pixels, matrix: np.ndarray, size: int) -> Patch:
    """The image under `matrix`, as far as it reaches into a square; later steps can skip the border.

    Bilinear sampling reads 2 x 2 pixels and would skip others where an image shrinks by more than 2: small objects would
    flicker. So the image is first halved by exact 2 x 2 means (OpenCV's fastest resize) until the remaining factor is
    between 0.5 and 1; in perspective, where it is largest.

    The edges of an image that is neither sheared nor turned, but by a multiple of 90 degrees, and of the part of it that the
    square shows, are moved to whole pixels, by half a pixel at most. Then they are sharp, and the warp is a plain resize of
    that part, some three times as fast.

    Args:
        image: uint8 `[H, W, C]`, C <= 4.
        matrix: float64 `[3, 3]` from pixels of the file to pixels of the square.
        size: side of the square in pixels.
    """
    values, native_size, halved = Pixels.of(image)
    times = max(halved, halvings(_scale(matrix, size)))
    if _upright(matrix):
        return _resized(values, native_size, matrix, size, times, halved)
    if _upright(matrix[_SWAPPED]):  # turned by 90 or 270 degrees
        lying = _resized(values, native_size, matrix[_SWAPPED], size, times, halved)
        height, width, channels = lying.pixels.shape
        standing = cv2.transpose(lying.pixels) if height and width else lying.pixels
        return Patch(standing.reshape(width, height, channels), lying.top, lying.left, lying.matrix[_SWAPPED])
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
    pixels = _sample(values, centres, window, cv2.INTER_LINEAR, (BORDER,) * 4)
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
    return _sample(values, centres, window, cv2.INTER_NEAREST, (outside,))


def _sample(
    values: np.ndarray, centres: np.ndarray, window: tuple[int, int], flags: int, outside: tuple[int, ...]
) -> np.ndarray:
    if in_perspective(centres):
        return cv2.warpPerspective(values, centres, window, flags=flags, borderValue=outside)
    return cv2.warpAffine(values, centres[:2], window, flags=flags, borderValue=outside)


def _upright(matrix: np.ndarray) -> bool:
    """Whether a matrix neither turns nor shears, and without perspective."""
    return not (matrix[0, 1] or matrix[1, 0] or in_perspective(matrix))


def _scale(matrix: np.ndarray, size: int) -> float:
    """By how much an image is enlarged, a mean over the directions; in perspective, at that corner of the square where it is
    largest."""
    if not in_perspective(matrix):
        return math.sqrt(abs(float(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])))
    nearest = (np.linalg.inv(matrix)[2] @ [[0, size, size, 0], [0, 0, size, size], [1, 1, 1, 1]]).max()
    return math.sqrt(abs(float(np.linalg.det(matrix))) * float(nearest) ** 3)

"""Reading images: any file OpenCV decodes becomes uint8 RGB, and every fault is named in words."""

from __future__ import annotations

import io
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ddptrain.config.data import Exif
from ddptrain.data.images.orientation import arrange, orientation_in
from ddptrain.data.images.pixels import halve

_RGB = getattr(cv2, "IMREAD_COLOR_RGB", None)  # decodes straight to RGB; OpenCV >= 4.11
# the flags of a decoder that halves 0 to 3 times
_REDUCED = (0, cv2.IMREAD_REDUCED_COLOR_2 - 1, cv2.IMREAD_REDUCED_COLOR_4 - 1, cv2.IMREAD_REDUCED_COLOR_8 - 1)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE = 258  # a tag of TIFF
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
# in entropy-coded data FF is followed by 00 (a stuffed byte), a restart marker or a fill byte, never by another marker
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def decoders() -> str:
    """The libraries that decode, with their versions: what another version makes of a file may differ."""
    return f"{cv2.__version__} {np.__version__} {Image.__version__}"


class BadImage(Exception):
    """An image that cannot be used: one line with the file and why."""


def read_image(path: str | os.PathLike[str], exif: Exif = "apply", halved: int = 0) -> np.ndarray:
    """Decode an image file.

    Grey becomes three equal channels, an alpha channel is dropped (colours that were multiplied by it are divided again)
    and 16-bit values are scaled to 8 bits.

    Args:
        path: the file; any name the system can open.
        exif: whether the picture is turned upright, or its pixels are taken as they are stored.
        halved: how often both sides are halved (rounded up): by the decoder of JPEG, of which a smaller image costs less and
            differs from the mean of 2 x 2 pixels by rounding; by that mean elsewhere.

    Returns:
        uint8 `[H, W, 3]`, RGB.

    Raises:
        BadImage: the file is missing, unreadable, empty, cut short, or not an image.
    """
    data = file_bytes(path)
    orientation = 0 if exif == "apply" else cv2.IMREAD_IGNORE_ORIENTATION
    # OpenCV 4 fills the missing part of a cut JPEG with grey and says nothing
    if data.startswith(_JPEG_START) and not data.endswith(_JPEG_END) and not _jpeg_is_complete(data):
        raise BadImage(f"{path}: the JPEG is cut short ({len(data)} bytes without its end marker)")
    if data.startswith(_JPEG_START):
        by_decoder = min(halved, len(_REDUCED) - 1)
        return halve(_decode_colour(path, data, orientation | _REDUCED[by_decoder]), halved - by_decoder)
    if data.startswith(_TIFF_STARTS):
        return halve(arrange(_upright_tiff(path, data), orientation_in(data), exif, upright=True), halved)
    return halve(_decode_colour(path, data, orientation), halved)


def read_levels(path: str | os.PathLike[str], exif: Exif = "apply") -> np.ndarray:
    """Decode a file whose values are not colours, as they are stored in it; else like `read_image`.

    Returns:
        uint8, uint16 or what else the file holds, `[H, W]` or, where it has more than one channel, `[H, W, C]`.
    """
    data = file_bytes(path)
    # OpenCV leaves every format but TIFF as it is stored here
    values = _decode(path, data, cv2.IMREAD_UNCHANGED)
    return arrange(values, orientation_in(data), exif, upright=data.startswith(_TIFF_STARTS))


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """What a file holds; raises `BadImage` where it cannot be read, or is empty."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as e:
        raise BadImage(f"{path}: {e.strerror or e}") from None
    if not data:
        raise BadImage(f"{path}: the file is empty")
    return data


def _decode(path: str | os.PathLike[str], data: bytes, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as e:
        raise BadImage(f"{path}: OpenCV cannot decode it ({e.err or e.code})") from None
    if image is None:
        raise BadImage(f"{path}: not an image that OpenCV can decode, or cut short ({len(data)} bytes)")
    return image


def _decode_colour(path: str | os.PathLike[str], data: bytes, flags: int = 0) -> np.ndarray:
    image = _decode(path, data, flags | (cv2.IMREAD_COLOR if _RGB is None else _RGB))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if _RGB is None else image


def _upright_tiff(path: str | os.PathLike[str], data: bytes) -> np.ndarray:
    """OpenCV and Pillow both turn a TIFF upright regardless of the flags; OpenCV also multiplies its 8-bit colours by their
    alpha, so that one with alpha is left to Pillow."""
    try:
        # from memory: from a path, Pillow 13 decodes a turned TIFF without compression as noise
        with Image.open(io.BytesIO(data)) as image:
            if image.mode == "RGBA" and max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) == 8:
                return np.array(image)[..., :3]
    except Exception as e:  # decoders of broken files raise nearly anything
        # Pillow's own words on a file that it does not know name an object in memory
        why = "not an image that Pillow can decode" if isinstance(e, UnidentifiedImageError) else " ".join(str(e).split())
        raise BadImage(f"{path}: {why or type(e).__name__}") from None
    return _decode_colour(path, data)


def _jpeg_is_complete(data: bytes) -> bool:
    """Whether the markers of a JPEG lead to its end marker; bytes may follow it (cameras add previews there).

    A search for the last FF D9 would find the one of an embedded thumbnail.
    """
    at = len(_JPEG_START)
    while True:
        marker = _MARKER.search(data, at)
        if marker is None:
            return False
        kind = data[marker.end() - 1]
        if kind == 0xD9:
            return True
        # every other marker starts a segment that begins with its length; entropy-coded data may follow it
        length = data[marker.end() : marker.end() + 2]
        at = marker.end() + int.from_bytes(length, "big")


class ImageCache:
    """Keeps the images that were used last, within a limit of bytes; a copy in another process starts empty."""

    def __init__(self, size: int) -> None:
        self.size, self._held = size, 0
        self._images: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def get(self, key: Hashable, read: Callable[[], np.ndarray]) -> np.ndarray:
        """The image of a key, which says which file and how it is read; not to be written into. Read where it is not kept."""
        image = self._images.get(key)
        if image is not None:
            self._images.move_to_end(key)
            return image
        image = read()
        image.flags.writeable = False
        self._images[key] = image
        self._held += image.nbytes
        while self._held > self.size and len(self._images) > 1:
            self._held -= self._images.popitem(last=False)[1].nbytes
        return image

    def __reduce__(self) -> tuple[type[ImageCache], tuple[int]]:
        return ImageCache, (self.size,)

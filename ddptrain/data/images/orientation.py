"""EXIF orientation: which way up the pixels of a file are stored, and the two ways to read them."""

import io
import struct
import zlib
from functools import cache

import cv2
import numpy as np
from PIL import Image

from ddptrain.config.data import Exif

TAG = 0x0112
TAIL = 1 << 16
"""Bytes at the end of a PNG in which an EXIF header is looked for."""
SWAPPED = (5, 6, 7, 8)
"""Orientations whose upright picture has the stored width as its height."""
_INVERSE = {6: 8, 8: 6}  # every other one undoes itself


def orientation_of(image: Image.Image, tail: bytes) -> int:
    """1 (stored upright) to 8, as OpenCV finds it: in TIFF's own tag, else in the EXIF header.

    Args:
        image: opened, not yet decoded: then Pillow knows what stands before the pixels.
        tail: the last `TAIL` bytes of a PNG, whose header may stand behind them.
    """
    if image.format == "TIFF":
        orientation = image.tag_v2.get(TAG, 1)  # type: ignore[attr-defined]
    else:
        orientation = _in_exif(image.info.get("exif") or (_late_exif(tail) if image.format == "PNG" else b""))
    return orientation if orientation in range(1, 9) else 1


def _late_exif(tail: bytes) -> bytes:
    """The content of the EXIF chunk in the last bytes of a PNG; empty where there is none."""
    at = tail.find(b"eXIf")
    while at >= 4:
        end = at + 4 + int.from_bytes(tail[at - 4 : at], "big")
        if zlib.crc32(tail[at:end]) == int.from_bytes(tail[end : end + 4], "big"):  # else these letters are pixels
            return tail[at + 4 : end]
        at = tail.find(b"eXIf", at + 1)
    return b""


def _in_exif(data: bytes) -> int:
    """The orientation in an EXIF header, 1 where it holds none; Pillow's own reader would ask XMP, too, as OpenCV does not."""
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    try:
        start = struct.unpack_from(f"{order}I", data, 4)[0]
        for entry in range(start + 2, start + 2 + 12 * struct.unpack_from(f"{order}H", data, start)[0], 12):
            tag, value = struct.unpack_from(f"{order}H6xH", data, entry)
            if tag == TAG:
                return int(value)
    except struct.error:  # no EXIF, or cut short
        pass
    return 1


def orientation_in(data: bytes) -> int:
    """`orientation_of` the file with these bytes; 1 where Pillow does not know its format."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return orientation_of(image, data[-TAIL:])
    except Exception:  # decoders of broken files raise nearly anything
        return 1


def arrange(pixels: np.ndarray, orientation: int, exif: Exif, upright: bool) -> np.ndarray:
    """Pixels as `exif` asks for them, from a decoder that stood them `upright` or left them as they are stored."""
    if upright == (exif == "apply"):
        return pixels
    return turn(pixels, orientation if exif == "apply" else _INVERSE.get(orientation, orientation))


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels `[H, W, ...]` turned upright."""
    if orientation in SWAPPED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


@cache
def opencv_turns(format: str) -> bool:
    """Whether the installed OpenCV turns pictures of Pillow's `format` upright: 5.0 does so for WebP, 4.12 does not."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[TAG] = 6
    Image.new("RGB", (2, 1)).save(file, format, exif=exif)
    decoded = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    return decoded is not None and decoded.shape[0] == 2

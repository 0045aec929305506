"""Size and soundness of image files from their first and last bytes, without decoding them."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddptrain.data.faults import Faults

TAIL = 512
EXIF_ORIENTATION = 0x0112
END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


def inspect_image(path: str) -> tuple[int, int] | str:
    """(width, height) in pixels as a decoder gives them (EXIF orientation applied), or what is wrong in words.

    `missing` means that there is no file. A JPEG or PNG whose end marker is not in the last `TAIL` bytes is decoded in
    full, so that a file with a long trailer is not called truncated.
    """
    try:
        with open(path, "rb") as file:
            with Image.open(file) as image:
                width, height = image.size
                # a PNG without this check would be decoded in full to look for a late EXIF chunk
                turned = "exif" in image.info or image.format == "TIFF"
                heeded = image.format != "WEBP" or _turns_webp()
                if turned and heeded and image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8):
                    width, height = height, width
                marker = END_MARKERS.get(image.format or "")
                if marker:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
                    if marker not in file.read():
                        file.seek(0)
                        with Image.open(file) as whole:
                            whole.load()
            return width, height
    except FileNotFoundError:
        return "missing"
    except Image.UnidentifiedImageError:
        return "not an image" if os.path.getsize(path) else "empty file"
    except Exception as e:  # decoders of broken files raise nearly anything
        return " ".join(str(e).split()) or type(e).__name__


@cache
def _turns_webp() -> bool:
    """Whether the OpenCV that decodes later heeds the EXIF orientation of WebP: 5.0 does, 4.12 does not."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[EXIF_ORIENTATION] = 6
    Image.new("RGB", (2, 1)).save(file, "WEBP", exif=exif)
    decoded = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    return decoded is not None and decoded.shape[0] == 2


def inspect_images(paths: Sequence[str], threads: int = 16) -> list[tuple[int, int] | str]:
    """`inspect_image` of every path, in order. Threads: on network storage the time goes into waiting."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(inspect_image, paths))


def sound_sizes(paths: Sequence[str], told_by: Sequence[str], faults: Faults) -> NDArray[np.int64]:
    """Sizes `[N, 2]` (width, height) of images as decoded; 0 for one that is missing or unreadable, which `faults` counts.

    Args:
        told_by: what names each image, for the fault of a missing one.
    """
    sizes = np.zeros((len(paths), 2), np.int64)
    for i, found in enumerate(inspect_images(paths)):
        if found == "missing":
            faults.add("missing image", told_by[i], paths[i])
        elif isinstance(found, str):
            faults.add("unreadable image", paths[i], found)
        else:
            sizes[i] = found
    return sizes

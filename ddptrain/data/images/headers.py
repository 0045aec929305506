"""Size and soundness of image files from their first and last bytes, without decoding them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

from PIL import Image

from ddptrain.config.data import Exif
from ddptrain.data.images.orientation import SWAPPED, TAIL, opencv_turns, orientation_of
from ddptrain.data.images.read import BadImage, read_image

END = 512
END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_WIDTH, _HEIGHT = 256, 257  # tags of TIFF


class Header(NamedTuple):
    """What a header says: (width, height) in pixels as `read_image` gives them, and the EXIF orientation, 1 (as stored) to
    8, by which it turns them upright where it is asked to."""

    size: tuple[int, int]
    orientation: int


def read_header(path: str, exif: Exif = "apply") -> Header | str:
    """The header of an image, or what is wrong in words.

    `missing` means that there is no file. A JPEG or PNG whose end marker is not in the last `END` bytes is decoded in
    full, so that a file with a long trailer is not called truncated.
    """
    try:
        with open(path, "rb") as file:
            with Image.open(file) as image:
                header = _header(image, _tail(file, TAIL) if image.format == "PNG" else b"", exif)
                if image.format == "TIFF" and image.mode in ("I", "F"):  # samples of 32 bits
                    read_image(path)
                marker = END_MARKERS.get(image.format or "")
                if marker and marker not in _tail(file, END):
                    file.seek(0)
                    with Image.open(file) as whole:
                        whole.load()
            return header
    except FileNotFoundError:
        return "missing"
    except BadImage as e:
        return str(e).removeprefix(f"{path}: ")
    except Image.UnidentifiedImageError:
        return "not an image" if os.path.getsize(path) else "empty file"
    except Exception as e:  # decoders of broken files raise nearly anything
        return " ".join(str(e).split()) or type(e).__name__


def _tail(file: BinaryIO, size: int) -> bytes:
    file.seek(max(0, file.seek(0, os.SEEK_END) - size))
    return file.read()


def _header(image: Image.Image, tail: bytes, exif: Exif) -> Header:
    if image.format == "TIFF":  # Pillow 11 gives the size of the upright picture, Pillow 10 that of the stored one
        width, height = (int(image.tag_v2[tag]) for tag in (_WIDTH, _HEIGHT))  # type: ignore[attr-defined]
    else:
        width, height = image.size
    orientation = orientation_of(image, tail)
    if orientation > 1 and not opencv_turns("JPEG" if image.format == "MPO" else str(image.format)):
        orientation = 1
    turned = exif == "apply" and orientation in SWAPPED
    return Header((height, width) if turned else (width, height), orientation)


def read_headers(paths: Sequence[str], exif: Exif = "apply", threads: int = 16) -> list[Header | str]:
    """`read_header` of every path, in order. Threads: on network storage the time goes into waiting."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda path: read_header(path, exif), paths))


def exif_hint(orientation: int, exif: Exif) -> str:
    """What to add to a fault of an image whose annotations would fit if width and height changed places; empty where its
    orientation is not the reason."""
    if orientation not in SWAPPED:
        return ""
    meant = "pixels as they are stored: set exif: ignore" if exif == "apply" else "upright picture: set exif: apply"
    return f"; its EXIF orientation is {orientation} and the annotations fit its {meant}"

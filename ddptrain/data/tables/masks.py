"""The table of images and their index masks, and how a mask is read."""

from __future__ import annotations

import io
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from ddptrain.config.data import Exif
from ddptrain.data.images.orientation import arrange, orientation_in
from ddptrain.data.images.read import BadImage
from ddptrain.data.tables.base import I32, I64, Paths, Table
from ddptrain.data.tables.hashing import U64, fold
from ddptrain.structures import VOID

WIDE = 26 * 256
"""Values that a mask has room for which codes them as ADE20K's own masks do, R / 10 × 256 + G."""
_SCALED = {"L;2": 85, "L;4": 17}  # grey of 2 and 4 bits is spread over 8 when it is read


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskTable(Table):
    """Images and masks of one dataset. N images, C classes.

    Attributes:
        masks: the mask of each image; read as `exif` says, as the images are.
        classes: uint8 `[V]`: class of each value in the files, `VOID` for those of no class; V is 256, or `WIDE` for masks
            that code their values in colours.
        pixels: int64 `[N, C + 1]`: pixels of each class in each mask; the last column counts void ones.
        values: int64 `[V]`: pixels of each value, in all masks together.
    """

    of_images: ClassVar[tuple[str, ...]] = ("sizes", "pixels")

    masks: Paths
    classes: npt.NDArray[np.uint8]
    pixels: I64
    values: I64

    def samples_by_class(self) -> I64:
        """int64 `[C]`: in how many masks each class occurs."""
        return (self.pixels[:, :-1] > 0).sum(0, dtype=np.int64)

    def to_classes(self, classes: tuple[str, ...], mapping: I32) -> MaskTable:
        """Every pixel is of one class or of none: ignored and dropped classes are void."""
        count = len(classes)
        own = np.append(np.where(mapping < 0, VOID, mapping), np.full(256 - len(mapping), VOID)).astype(np.uint8)
        pixels = np.zeros((len(self), count + 1), np.int64)
        np.add.at(pixels.T, np.append(np.where(mapping < 0, count, mapping), count), self.pixels.T)
        return replace(self, names=classes, ignored_names=(), classes=own[self.classes], pixels=pixels)

    def labels(self, image: int) -> npt.NDArray[np.uint8]:
        """uint8 `[H, W]`: class of each pixel, `VOID` where there is none.

        Raises:
            BadImage: the mask can no longer be read, or its size has changed.
        """
        path, (width, height) = self.masks[image], self.sizes[image].tolist()
        values = read_mask(path, self.exif, len(self.classes) == WIDE)
        if values.shape != (height, width):
            raise BadImage(
                f"{path}: {values.shape[1]} x {values.shape[0]} pixels, but {width} x {height} when the dataset was read"
            )
        return self.classes[values]

    def hash_contents(self) -> U64:
        meaning = self.classes.tobytes() + "\0".join(self.names).encode()
        return fold(super().hash_contents(), np.uint64(zlib.crc32(meaning)))


def read_mask(
    path: str | os.PathLike[str], exif: Exif = "apply", wide: bool = False
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """The indices in a mask: of a palette as they are stored, of a grey image its values of up to 8 bits.

    Args:
        exif: whether a mask that says that it is stored rotated or mirrored is turned upright, as an image is.
        wide: the mask codes a value below `WIDE` in red and green.

    Returns:
        uint8 `[H, W]`, or uint16.

    Raises:
        BadImage: no image, or one that does not hold an index a pixel.
    """
    try:
        data = Path(path).read_bytes()
        with Image.open(io.BytesIO(data)) as image:  # from memory, see `images.read_image`
            mode, stored, lossy = image.mode, _stored(image), image.format in ("JPEG", "MPO")
            pixels = np.array(image).astype(np.uint8) if mode == "1" else np.array(image)
            # Pillow turns a TIFF upright when it decodes it
            pixels = arrange(pixels, orientation_in(data), exif, upright=image.format == "TIFF")
    except FileNotFoundError:
        raise BadImage(f"{path}: no such file") from None
    except Exception as e:  # decoders of broken files raise nearly anything
        raise BadImage(f"{path}: not a mask that can be read ({' '.join(str(e).split()) or type(e).__name__})") from None
    if lossy:
        raise BadImage(f"{path}: a JPEG, which does not keep the values that were written; save masks as PNG")
    if wide and mode in ("RGB", "RGBA"):
        return pixels[..., 0].astype(np.uint16) // 10 * 256 + pixels[..., 1]
    if mode in ("L", "P", "1") and not wide:
        return pixels.astype(np.uint8) // np.uint8(_SCALED.get(stored, 1))
    what = f"16-bit or wider ({mode})" if mode.startswith(("I", "F")) else f"a colour image ({mode})"
    if wide:
        raise BadImage(f"{path}: {mode}; a mask of this layout codes classes in red and green")
    if pixels.ndim == 3 and (pixels[..., :3] == pixels[..., :1]).all():
        what += " whose channels are equal: save one of them"
    raise BadImage(f"{path}: {what}; a mask holds one 8-bit class index per pixel: a PNG with a palette, or grey")


def _stored(image: Image.Image) -> str:
    """How its pixels are stored: `L;4` is grey of 4 bits."""
    tile = getattr(image, "tile", None)
    raw = tile[0][3] if tile else ""
    return str(raw[0] if isinstance(raw, tuple) else raw)

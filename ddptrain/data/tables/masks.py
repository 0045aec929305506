"""Images and their index masks, in flat columns; see `table.py` for why."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ddptrain.config.data import Exif
from ddptrain.data.images.orientation import arrange, orientation_in
from ddptrain.data.images.read import BadImage
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.structures import VOID

WIDE = 26 * 256
"""Values that a mask has room for which codes them as ADE20K's own masks do, R / 10 × 256 + G."""
_SCALED = {"L;2": 85, "L;4": 17}  # grey of 2 and 4 bits is spread over 8 when it is read


@dataclass(frozen=True, eq=False)
class MaskTable:
    """Images and masks of one dataset. N images, C classes.

    Attributes:
        name: the dataset's name in the config.
        root: its folder.
        names: class names. As read: the dataset's own; after `apply_masks`: the run's.
        path_bytes, path_offsets: paths of the images, see `AnnotationTable`.
        mask_bytes, mask_offsets: paths of the masks, in the same form.
        sizes: int32 `[N, 2]`: width and height in pixels.
        classes: uint8 `[V]`: class of each value in the files, `VOID` for those of no class; V is 256, or `WIDE` for masks
            that code their values in colours.
        pixels: int64 `[N, C + 1]`: pixels of each class in each mask; the last column counts void ones.
        values: int64 `[V]`: pixels of each value, in all masks together.
        ignored_names: none; a void value is no class.
        digests: int64 `[N]`: of each image and mask, where the cache has them; see `contents.digests`.
        exif: how images and masks are read.
    """

    name: str
    root: str
    names: tuple[str, ...]
    path_bytes: npt.NDArray[np.uint8]
    path_offsets: npt.NDArray[np.int64]
    mask_bytes: npt.NDArray[np.uint8]
    mask_offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    classes: npt.NDArray[np.uint8]
    pixels: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]
    ignored_names: tuple[str, ...] = ()
    digests: npt.NDArray[np.int64] | None = None
    exif: Exif = "apply"

    def __len__(self) -> int:
        return len(self.sizes)

    def path(self, image: int) -> str:
        """Path of one image."""
        return _path(self.path_bytes, self.path_offsets, image)

    def mask_path(self, image: int) -> str:
        """Path of its mask."""
        return _path(self.mask_bytes, self.mask_offsets, image)

    def samples_by_class(self) -> npt.NDArray[np.int64]:
        """int64 `[C]`: in how many masks each class occurs."""
        return (self.pixels[:, :-1] > 0).sum(0, dtype=np.int64)

    def labels(self, image: int) -> npt.NDArray[np.uint8]:
        """uint8 `[H, W]`: class of each pixel, `VOID` where there is none.

        Raises:
            BadImage: the mask cannot be read any more, or has another size than at the start.
        """
        path, (width, height) = self.mask_path(image), self.sizes[image].tolist()
        values = read_mask(path, self.exif, len(self.classes) == WIDE)
        if values.shape != (height, width):
            raise BadImage(f"{path}: {values.shape[1]} x {values.shape[0]} pixels, but {width} x {height} at the start")
        return self.classes[values]


def _path(buffer: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], image: int) -> str:
    return buffer[offsets[image] : offsets[image + 1]].tobytes().decode("utf-8", "surrogateescape")


def apply_masks(space: LabelSpace, table: MaskTable) -> MaskTable:
    """The table with classes of the run. Every pixel is of one class or of none: ignored and dropped classes are void."""
    mapped = space.maps[space.datasets.index(table.name)]
    count = len(space.classes)
    own = np.append(np.where(mapped < 0, VOID, mapped), np.full(256 - len(mapped), VOID)).astype(np.uint8)
    pixels = np.zeros((len(table), count + 1), np.int64)
    columns = np.append(np.where(mapped < 0, count, mapped), count)
    np.add.at(pixels.T, columns, table.pixels.T)
    return replace(table, names=space.classes, classes=own[table.classes], pixels=pixels)


def read_mask(
    path: str | os.PathLike[str], exif: Exif = "apply", wide: bool = False
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """The indices in a mask: of a palette as they are stored, of a grey image its values of up to 8 bits.

    Args:
        exif: whether a mask that says that it is stored turned is stood upright, as an image is.
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
            # Pillow stands a TIFF upright as it decodes it
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
    raise BadImage(f"{path}: {what}; a mask holds one 8-bit class index a pixel: a PNG with a palette, or grey")


def _stored(image: Image.Image) -> str:
    """How its pixels are stored: `L;4` is grey of 4 bits."""
    tile = getattr(image, "tile", None)
    raw = tile[0][3] if tile else ""
    return str(raw[0] if isinstance(raw, tuple) else raw)

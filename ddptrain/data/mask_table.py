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
from ddptrain.data.images import BadImage
from ddptrain.data.labels import LabelSpace
from ddptrain.data.orientation import arrange, orientation_in
from ddptrain.structures import VOID


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
        classes: uint8 `[256]`: class of each value in the files, `VOID` for those of no class.
        pixels: int64 `[N, C + 1]`: pixels of each class in each mask; the last column counts void ones.
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
        values = read_mask(path, self.exif)
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


def read_mask(path: str | os.PathLike[str], exif: Exif = "apply") -> npt.NDArray[np.uint8]:
    """The indices in a mask: of a palette as they are stored, of a grey image its 8-bit values.

    Args:
        exif: whether a mask that says that it is stored turned is stood upright, as an image is.

    Returns:
        uint8 `[H, W]`.

    Raises:
        BadImage: no image, or one that does not hold one 8-bit index a pixel.
    """
    try:
        data = Path(path).read_bytes()
        with Image.open(io.BytesIO(data)) as image:  # from memory, see `images.read_image`
            mode = image.mode
            if mode in ("L", "P", "1"):
                values = np.array(image).astype(np.uint8)
                # Pillow stands a TIFF upright as it decodes it
                return arrange(values, orientation_in(data), exif, upright=image.format == "TIFF")
    except FileNotFoundError:
        raise BadImage(f"{path}: no such file") from None
    except Exception as e:  # decoders of broken files raise nearly anything
        raise BadImage(f"{path}: not a mask that can be read ({' '.join(str(e).split()) or type(e).__name__})") from None
    kind = "16-bit or wider" if mode.startswith(("I", "F")) else "a colour image"
    raise BadImage(f"{path}: {kind} ({mode}); a mask holds one 8-bit class index a pixel: a PNG with a palette, or grey")

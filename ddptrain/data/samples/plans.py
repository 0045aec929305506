"""How the images of samples are decoded, and the plans by which they are packed."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from ddptrain.config.data import Exif
from ddptrain.data.images.read import BadImage, read_image
from ddptrain.data.packed.plan import Plan
from ddptrain.data.tables.base import Paths

IMAGES = "images"
"""`Plan.kind` of images."""


class ImageFiles(Protocol):
    """What is known of image files: a table, or a `FileList`."""

    @property
    def paths(self) -> Sequence[str]: ...
    @property
    def sizes(self) -> np.ndarray: ...
    @property
    def exif(self) -> Exif: ...
    def path(self, image: int) -> str:
        """Path of one image."""


def read_sized(table: ImageFiles, image: int, halved: int = 0) -> np.ndarray:
    """Decode an image, uint8 `[H, W, 3]` RGB, halved (see `Pixels`); raises `BadImage`, also where its size has changed."""
    path, (width, height), step = table.path(image), table.sizes[image].tolist(), 2**halved
    pixels = read_image(path, table.exif, halved)
    if pixels.shape[:2] != (-(-height // step), -(-width // step)):
        now = f"{pixels.shape[1] * step} x {pixels.shape[0] * step} pixels"
        raise BadImage(f"{path}: {now}, but {width} x {height} when the dataset was read")
    return pixels


def plan_images(table: ImageFiles, dataset: int, halved: np.ndarray, used: np.ndarray) -> Plan:
    """The plan of the images of a dataset, each halved so often, uint8 `[N]`."""
    paths = table.paths if isinstance(table.paths, Paths) else Paths.pack(table.paths)
    step = 2 ** halved.astype(np.int64)[:, None]
    shapes = np.insert(-(-table.sizes[:, ::-1].astype(np.int64) // step), 2, 3, axis=1)
    read = partial(_read_planned, table, halved)
    return Plan(IMAGES, dataset, paths, shapes, halved, used, read, (table.exif,))


def plan_levels(
    kind: str,
    dataset: int,
    paths: Paths,
    sizes: np.ndarray,
    used: np.ndarray,
    read: Callable[[int], np.ndarray],
    about: Sequence[Any],
) -> Plan:
    """The plan of what has one value a pixel, in the size of images, int `[N, 2]`."""
    return Plan(kind, dataset, paths, sizes[:, ::-1].astype(np.int64), np.zeros(len(sizes), np.uint8), used, read, about)


def _read_planned(table: ImageFiles, halved: np.ndarray, image: int) -> np.ndarray:
    return read_sized(table, image, int(halved[image]))

"""The table of images with labels of their whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ddptrain.data.tables.base import I32, I64, Mask, RowTable


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageTable(RowTable):
    """Images and their labels of one dataset. N images, M labels; a row is a label.

    Attributes:
        pixels: uint8 `[N, H, W]`, the images themselves where one file holds all of them (MNIST); then `paths` is empty.
    """

    of_images: ClassVar[tuple[str, ...]] = ("sizes", "pixels")

    pixels: npt.NDArray[np.uint8] | None = None

    def path(self, image: int) -> str:
        """Path of one image, or where in a file it stands."""
        return f"{self.root}: image {image}" if self.pixels is not None else super().path(image)

    def names_below_root(self) -> list[bytes]:
        """Each image's path relative to the root, or its number in the file."""
        return super().names_below_root() if self.pixels is None else [str(i).encode() for i in range(len(self))]

    def truth(self) -> Mask:
        """bool `[N, classes]`: which classes each image has."""
        out = np.zeros((len(self), len(self.names)), bool)
        out[self.image_of_rows(), self.labels] = True
        return out

    def samples_by_class(self) -> I64:
        """int64 `[classes]`: how many images have each class."""
        return np.bincount(self.labels, minlength=len(self.names))

    def to_classes(self, classes: tuple[str, ...], mapping: I32) -> ImageTable:
        """Dropped and ignored labels go, and with them an image that had no other. Several own classes of an image that become
        the same one are one label."""
        labels = mapping[self.labels].astype(np.int32)
        out = replace(self, names=classes, ignored_names=(), labels=labels).keep_rows(labels >= 0)
        _, first = np.unique(out.image_of_rows() * len(classes) + out.labels, return_index=True)
        out = out.keep_rows(np.isin(np.arange(len(out.labels)), first))
        return out.keep_images((np.diff(out.offsets) > 0) | (np.diff(self.offsets) == 0))

"""Images with labels of their whole, in flat columns; see `table.py` for why."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ddptrain.config.data import Exif
from ddptrain.data.images.headers import sound_sizes
from ddptrain.data.tables.boxes import pack_paths
from ddptrain.data.tables.faults import Faults
from ddptrain.data.tables.labels import LabelSpace


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Images and their labels of one dataset. N images, M labels; the labels of an image lie together.

    Attributes:
        name: the dataset's name in the config.
        root: its folder.
        names: class names; `labels` index them. As read: the dataset's own; after `apply_labels`: the run's.
        path_bytes: uint8, all image paths, one after the other.
        path_offsets: int64 `[N + 1]`: path i is `path_bytes[path_offsets[i]:path_offsets[i + 1]]`.
        sizes: int32 `[N, 2]`: width and height in pixels, as decoded.
        offsets: int64 `[N + 1]`: image i has the labels `offsets[i]` to `offsets[i + 1]`.
        labels: int32 `[M]`: index into `names`.
        pixels: uint8 `[N, H, W]`, the images themselves where one file holds all of them (MNIST), else None.
        ignored_names: none; a dataset of whole images has no class that its benchmark ignores.
        exif: how the images are read.
    """

    name: str
    root: str
    names: tuple[str, ...]
    path_bytes: npt.NDArray[np.uint8]
    path_offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    pixels: npt.NDArray[np.uint8] | None = None
    ignored_names: tuple[str, ...] = ()
    exif: Exif = "apply"

    def __len__(self) -> int:
        return len(self.sizes)

    def path(self, image: int) -> str:
        """Path of one image, or where in a file it stands."""
        if self.pixels is not None:
            return f"{self.root}: image {image}"
        start, stop = self.path_offsets[image], self.path_offsets[image + 1]
        return self.path_bytes[start:stop].tobytes().decode("utf-8", "surrogateescape")

    def truth(self) -> npt.NDArray[np.bool_]:
        """bool `[N, classes]`: which classes each image has."""
        out = np.zeros((len(self), len(self.names)), bool)
        out[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.labels] = True
        return out

    def samples_by_class(self) -> npt.NDArray[np.int64]:
        """int64 `[classes]`: how many images have each class."""
        return np.bincount(self.labels, minlength=len(self.names))

    def keep_images(self, keep: npt.NDArray[np.bool_]) -> ImageTable:
        """The table with only the images where `keep` (bool `[N]`)."""
        counts = np.diff(self.offsets)
        buffer, path_offsets = pack_paths([self.path(int(i)) for i in np.flatnonzero(keep)])
        return replace(
            self,
            path_bytes=buffer,
            path_offsets=path_offsets,
            sizes=self.sizes[keep],
            offsets=np.concatenate([[0], np.cumsum(counts[keep])]).astype(np.int64),
            labels=self.labels[np.repeat(keep, counts)],
            pixels=None if self.pixels is None else self.pixels[keep],
        )


def apply_labels(space: LabelSpace, table: ImageTable) -> ImageTable:
    """The table with labels of the run. Dropped and ignored labels go, and with them an image that had no other."""
    mapped = space.maps[space.datasets.index(table.name)][table.labels]
    image = np.repeat(np.arange(len(table)), np.diff(table.offsets))
    before = np.diff(table.offsets)
    after = np.bincount(image[mapped >= 0], minlength=len(table))
    offsets = np.concatenate([[0], np.cumsum(after)]).astype(np.int64)
    out = replace(table, names=space.classes, labels=mapped[mapped >= 0].astype(np.int32), offsets=offsets)
    return out.keep_images((after > 0) | (before == 0))


class LabelCollector:
    """Takes images and labels in any order of labels, and makes an `ImageTable` of them."""

    def __init__(self, faults: Faults, exif: Exif = "apply") -> None:
        self.faults = faults
        self.exif = exif
        self.paths: list[str] = []
        self.told_by: list[str] = []
        self._known: dict[str, int] = {}
        self._labels: list[tuple[int, int]] = []

    def image(self, path: str, told_by: str) -> int:
        """Number of an image that the file `told_by` (or its folder) names; it may be named more than once."""
        key = os.path.abspath(path)
        if key not in self._known:
            self._known[key] = len(self.paths)
            self.paths.append(path)
            self.told_by.append(told_by)
        return self._known[key]

    def label(self, image: int, label: int) -> None:
        """Give an image an own class."""
        self._labels.append((image, label))

    def table(
        self, name: str, root: str, names: tuple[str, ...], keep: Callable[[str], bool] = lambda path: True
    ) -> ImageTable:
        """The table of all images that are sound and that `keep` keeps; each fault is counted in `faults`."""
        self.faults.looked_in |= set(map(os.path.dirname, self.paths))
        kept = [i for i, path in enumerate(self.paths) if keep(path)]
        sizes = np.zeros((len(self.paths), 2), np.int32)
        paths, told_by = [self.paths[i] for i in kept], [self.told_by[i] for i in kept]
        sizes[kept] = sound_sizes(paths, told_by, self.faults, self.exif)
        sound = sizes[:, 0] > 0
        pairs = np.unique(np.array(self._labels, np.int64).reshape(-1, 2), axis=0)
        pairs = pairs[sound[pairs[:, 0]]]
        per_image = np.bincount(pairs[:, 0], minlength=len(sizes))[sound]
        buffer, path_offsets = pack_paths([p for p, good in zip(self.paths, sound) if good])
        return ImageTable(
            name=name,
            root=root,
            names=names,
            path_bytes=buffer,
            path_offsets=path_offsets,
            sizes=sizes[sound],
            offsets=np.concatenate([[0], np.cumsum(per_image)]).astype(np.int64),
            labels=pairs[:, 1].astype(np.int32),
            exif=self.exif,
        )

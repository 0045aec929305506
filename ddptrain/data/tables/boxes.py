"""The one form that every detection dataset is read into: flat columns, no Python object per image or box.

Workers that are forked share these arrays; a list of a million small arrays would be copied page by page as its
reference counts change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ddptrain.config.data import Exif

_CELLS = 2**24
"""Images times classes that are counted at once."""


def pack_paths(paths: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Paths as one uint8 buffer and int64 offsets `[len(paths) + 1]` into it."""
    encoded = [p.encode("utf-8", "surrogateescape") for p in paths]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(e) for e in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


@dataclass(frozen=True, eq=False)
class AnnotationTable:
    """Images and boxes of one dataset. N images, M boxes; the boxes of an image lie together.

    Attributes:
        name: the dataset's name in the config.
        root: its folder.
        names: class names; `labels` index them. As read: the dataset's own; after `LabelSpace.apply`: the run's.
        path_bytes: uint8, all image paths, one after the other (absolute, or relative to the working directory).
        path_offsets: int64 `[N + 1]`: path i is `path_bytes[path_offsets[i]:path_offsets[i + 1]]`.
        sizes: int32 `[N, 2]`: width and height in pixels, as decoded.
        offsets: int64 `[N + 1]`: image i has the rows `offsets[i]` to `offsets[i + 1]`.
        boxes: float32 `[M, 4]`: (x1, y1, x2, y2) in pixels of the file, inside the image, `x1 < x2` and `y1 < y2`.
        labels: int32 `[M]`: index into `names`, or -1 for an ignore region that has no class.
        ignore: bool `[M]`: nothing is right or wrong in this box.
        crowd: bool `[M]`: the box holds many objects of its class (COCO `iscrowd`).
        area: float32 `[M]`: in square pixels; that of the mask where the format gives it, else of the box.
        ignored_names: own classes whose boxes the benchmark ignores unless the config says otherwise
            (VisDrone `others`).
        digests: int64 `[N]`: of each image's file and rows, where the cache has them; see `contents.digests`.
        exif: how the images are read.
    """

    name: str
    root: str
    names: tuple[str, ...]
    path_bytes: npt.NDArray[np.uint8]
    path_offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    ignore: npt.NDArray[np.bool_]
    crowd: npt.NDArray[np.bool_]
    area: npt.NDArray[np.float32]
    ignored_names: tuple[str, ...] = ()
    digests: npt.NDArray[np.int64] | None = None
    exif: Exif = "apply"

    def __len__(self) -> int:
        return len(self.sizes)

    def path(self, image: int) -> str:
        """Path of one image, absolute or relative to the working directory."""
        if not 0 <= image < len(self):
            raise IndexError(f"image {image} of {len(self)}")
        start, stop = self.path_offsets[image], self.path_offsets[image + 1]
        return self.path_bytes[start:stop].tobytes().decode("utf-8", "surrogateescape")

    def learned(self) -> npt.NDArray[np.bool_]:
        """bool `[M]`: the boxes that are learned: neither ignore regions nor crowds."""
        return ~(self.ignore | self.crowd)

    def samples_by_class(self) -> npt.NDArray[np.int64]:
        """int64 `[classes]`: in how many images a box of each class is learned."""
        return self.samples_by_group(np.zeros(len(self), np.int64), 1)[0]

    def samples_by_group(self, group: npt.NDArray[np.int64], groups: int) -> npt.NDArray[np.int64]:
        """int64 `[groups, classes]`: the same of the images that are of each group, `group` int64 `[N]`."""
        count, out = len(self.names), np.zeros(groups * len(self.names), np.int64)
        learned, step = self.learned(), max(1, _CELLS // max(count, 1))
        for start in range(0, len(self), step):  # no sorting: ten million rows take a second
            ends = self.offsets[start : start + step + 1]
            kept = learned[ends[0] : ends[-1]]
            image = np.repeat(np.arange(len(ends) - 1), np.diff(ends))[kept]
            there = np.zeros((len(ends) - 1) * count, bool)
            there[image * count + self.labels[ends[0] : ends[-1]][kept]] = True
            image, label = np.divmod(np.flatnonzero(there), max(count, 1))
            out += np.bincount(group[start + image] * count + label, minlength=len(out))
        return out.reshape(groups, count)

    def rows(self, image: int) -> slice:
        """The rows of one image in `boxes`, `labels`, `ignore`, `crowd` and `area`."""
        if not 0 <= image < len(self):
            raise IndexError(f"image {image} of {len(self)}")
        return slice(int(self.offsets[image]), int(self.offsets[image + 1]))

    def image_of_rows(self) -> npt.NDArray[np.int64]:
        """int64 `[M]`: the image that each row belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def keep_rows(self, keep: npt.NDArray[np.bool_]) -> AnnotationTable:
        """The table with only the rows where `keep` (bool `[M]`); every image stays."""
        before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
        return replace(
            self,
            offsets=before[self.offsets],
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            ignore=self.ignore[keep],
            crowd=self.crowd[keep],
            area=self.area[keep],
        )

    def counts(self) -> str:
        """`3 images, 7 boxes`, and how many images have none: they are background, whatever the format says of them."""
        empty = int((np.diff(self.offsets) == 0).sum())
        return f"{len(self)} images, {len(self.boxes)} boxes" + (f" ({empty} images without a box)" if empty else "")

    def keep_images(self, keep: npt.NDArray[np.bool_]) -> AnnotationTable:
        """The table with only the images where `keep` (bool `[N]`), and their rows."""
        rows = self.keep_rows(np.repeat(keep, np.diff(self.offsets)))
        kept = np.flatnonzero(keep)
        buffer, offsets = pack_paths([self.path(int(i)) for i in kept])
        return replace(
            rows,
            path_bytes=buffer,
            path_offsets=offsets,
            sizes=self.sizes[keep],
            offsets=np.concatenate([rows.offsets[:1], rows.offsets[1:][keep]]),
            digests=None if self.digests is None else self.digests[keep],
        )

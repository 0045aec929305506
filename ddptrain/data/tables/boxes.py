"""The table that every detection dataset is read into."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ddptrain.data.tables.base import DROP, I32, I64, IGNORE, Mask, RowTable
from ddptrain.system.printable import counted

_CELLS = 2**24
"""Images times classes that are counted at once."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AnnotationTable(RowTable):
    """Images and boxes of one dataset. N images, M boxes.

    Attributes:
        labels: int32 `[M]`: index into `names`, or -1 for an ignore region that has no class.
        boxes: float32 `[M, 4]`: (x1, y1, x2, y2) in pixels of the file, inside the image, `x1 < x2` and `y1 < y2`.
        ignore: bool `[M]`: nothing is right or wrong in this box.
        crowd: bool `[M]`: the box holds many objects of its class (COCO `iscrowd`).
        area: float32 `[M]`: in square pixels; that of the mask where the format gives it, else of the box.
        masks: uint8 `[M, 32]`, see `box_masks`; None where the format has none.
    """

    of_rows: ClassVar[tuple[str, ...]] = ("boxes", "ignore", "crowd", "area", "masks", "labels")

    boxes: npt.NDArray[np.float32]
    ignore: Mask
    crowd: Mask
    area: npt.NDArray[np.float32]
    masks: npt.NDArray[np.uint8] | None = None

    def learned(self) -> Mask:
        """bool `[M]`: the boxes that are learned: neither ignore regions nor crowds."""
        return ~(self.ignore | self.crowd)

    def samples_by_class(self) -> I64:
        """int64 `[classes]`: in how many images a box of each class is learned."""
        return self.samples_by_group(np.zeros(len(self), np.int64), 1)[0]

    def samples_by_group(self, group: I64, groups: int) -> I64:
        """int64 `[groups, classes]`: the same of the images that are of each group, `group` int64 `[N]`."""
        count, out = len(self.names), np.zeros(groups * len(self.names), np.int64)
        learned, step = self.learned(), max(1, _CELLS // max(count, 1))
        for start in range(0, len(self), step):  # no sorting: ten million rows take a second
            ends = self.offsets[start : start + step + 1]
            kept = learned[ends[0] : ends[-1]]
            image = np.repeat(np.arange(len(ends) - 1), np.diff(ends))[kept]
            shown = np.zeros((len(ends) - 1) * count, bool)
            shown[image * count + self.labels[ends[0] : ends[-1]][kept]] = True
            image, label = np.divmod(np.flatnonzero(shown), max(count, 1))
            out += np.bincount(group[start + image] * count + label, minlength=len(out))
        return out.reshape(groups, count)

    def counts(self) -> str:
        """`3 images, 7 boxes`, and how many images have none: they are background, whatever the format says of them."""
        empty = int((np.diff(self.offsets) == 0).sum())
        without = f" ({counted(empty, 'image')} without a box)" if empty else ""
        return f"{counted(len(self), 'image')}, {counted(len(self.boxes), 'box', 'boxes')}{without}"

    def to_classes(self, classes: tuple[str, ...], mapping: I32) -> AnnotationTable:
        """Rows of ignored classes become ignore regions without a class (label -1), rows of dropped classes go; ignore
        regions without a class, and flags, stay."""
        labels = np.where(self.labels < 0, IGNORE, mapping[self.labels]).astype(np.int32)
        mapped = replace(
            self,
            names=classes,
            ignored_names=(),
            labels=np.maximum(labels, -1),
            ignore=self.ignore | (labels == IGNORE),
        )
        keep = labels != DROP
        return mapped if keep.all() else mapped.keep_rows(keep)  # without a copy, columns stay mapped from the cache

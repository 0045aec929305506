"""`Matches`: which detection found which box, stored. Every curve and average precision is a function of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Matches:
    """What each detection was matched with. D detections, G boxes of the truth, T overlaps, A ranges of areas ("sizes").

    The detections stand by class, in a class by falling score (equal scores by image, then as they were given): the order in
    which average precision counts them. Detections of classes that their dataset does not annotate, and those beyond the best
    `max_detections` of their class and image, are not among them.

    Attributes:
        thresholds: float64 `[T]`: the IoU from which on a box is found.
        images: number of images.
        classes: number of classes.
        row: int64 `[D]`: the detection's row among those that were given of its dataset.
        image: int64 `[D]`: number of its image.
        label: int64 `[D]`: its class, never falling.
        score: float32 `[D]`.
        box: float32 `[D, 4]`, `(x1, y1, x2, y2)` in pixels of the file.
        result: int8 `[A, T, D]`: 1 it found a box that counts; 0 a false alarm; -1 it counts neither way: it lies on an ignored
            box (in a crowd, an ignore region, or of another size), or it found nothing and is itself of another size.
        truth: int32 `[T, D]`: row of the box that it was matched with, -1 for none, where all sizes count (`result[0]`).
        truth_image: int64 `[G]`: number of the box's image, never falling; the rows are those of the `GroundTruth`.
        truth_label: int64 `[G]`: its class, -1 for an ignore region.
        truth_area: float64 `[G]`: square pixels of the object.
        truth_box: float `[G, 4]`.
        counts: bool `[A, G]`: whether the box is to be found; not so crowds, ignore regions, boxes of another size and of
            classes that are not annotated.
    """

    thresholds: F64
    images: int
    classes: int
    row: I64
    image: I64
    label: I64
    score: NDArray[np.floating]
    box: NDArray[np.floating]
    result: NDArray[np.int8]
    truth: NDArray[np.int32]
    truth_image: I64
    truth_label: I64
    truth_area: F64
    truth_box: NDArray[np.floating]
    counts: NDArray[np.bool_]

    def of_class(self, label: int) -> slice:
        """The detections of one class."""
        return slice(*np.searchsorted(self.label, [label, label + 1]).tolist())

    def truths(self, size: int = 0) -> I64:
        """int64 `[classes]`: the number of boxes to be found of each class, in one range of areas."""
        return np.bincount(self.truth_label[self.counts[size]], minlength=self.classes)

    def select(self, kept: NDArray[np.integer] | NDArray[np.bool_]) -> Matches:
        """Some of the detections, in their order or another one; the truth stays."""
        return replace(self, **{name: getattr(self, name)[kept] for name in ("row", "image", "label", "score", "box")},
                       result=self.result[..., kept], truth=self.truth[:, kept])  # fmt: skip

    @staticmethod
    def concatenate(parts: Sequence[Matches]) -> Matches:
        """The matches of several datasets as those of one: images and rows of the truth count on from part to part."""
        if len(parts) == 1:
            return parts[0]
        images = np.cumsum([0, *(p.images for p in parts)])
        rows = np.cumsum([0, *(len(p.truth_area) for p in parts)])
        moved = [
            replace(
                p,
                image=p.image + images[i],
                truth_image=p.truth_image + images[i],
                truth=np.where(p.truth >= 0, p.truth + np.int32(rows[i]), p.truth),
            )
            for i, p in enumerate(parts)
        ]
        arrays = [f.name for f in fields(Matches) if f.name not in ("thresholds", "images", "classes")]
        axis = {"result": -1, "truth": -1, "counts": -1}
        joined = {name: np.concatenate([getattr(p, name) for p in moved], axis.get(name, 0)) for name in arrays}
        whole = Matches(thresholds=parts[0].thresholds, images=int(images[-1]), classes=parts[0].classes, **joined)
        return whole.select(by_class(whole.label, whole.score))


def by_class(label: NDArray[np.integer], score: NDArray[np.floating]) -> I64:
    """int64 `[D]`: the order of `Matches`: by class, best first, equals as they come."""
    return np.lexsort((-score, label))

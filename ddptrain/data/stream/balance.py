"""Images drawn by the classes of their boxes, inside the share of each dataset: the weights of `data.balance`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ddptrain.data.stream.weights import class_aware_weights, class_balanced_weights, image_weights_from_class_ap

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Boxes:
    """The boxes of one dataset. N images, M boxes.

    Attributes:
        images: N.
        image: int64 `[M]`, rising.
        labels: int64 `[M]`, below C.
        classes: C.
        empty: of tiles, how many of the N, the last ones, are draws of tiles without boxes.
    """

    images: int
    image: I64
    labels: I64
    classes: int
    empty: int = 0

    @cached_property
    def shown(self) -> tuple[I64, I64]:
        """Image (rising) and class of each class that an image shows, once."""
        image, label = np.divmod(np.unique(self.image * self.classes + self.labels), self.classes)
        return image, label

    @cached_property
    def starts(self) -> I64:
        """int64 `[N + 1]`: where the classes of each image begin in `shown`."""
        return np.searchsorted(self.shown[0], np.arange(self.images + 1))

    def count(self, index: I64) -> I64:
        """How many of some images, listed as often as they count, show each class: int64 `[C]`."""
        first, length = self.starts[index], self.starts[index + 1] - self.starts[index]
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        return np.bincount(self.shown[1][np.repeat(first, length) + within], minlength=self.classes)

    def expect(self, visits: F64) -> F64:
        """The same of images that are visited so many times each, float64 `[N]` → float64 `[C]`."""
        image, label = self.shown
        return np.bincount(label, visits[image], self.classes).astype(np.float64)


@dataclass(frozen=True)
class Balance:
    """How often each image of a mixture is drawn.

    Attributes:
        kind: `image_weights`, `repeat_factor` or `class_balanced`, see `config.balance`.
        threshold: of `repeat_factor`.
        together: classes are counted over the mixture, not in each dataset.
        shares: of the datasets, in whatever unit.
        datasets: their boxes.
        by_ap: the weights follow the AP of each class in the evaluations of the run.
    """

    kind: str
    threshold: float
    together: bool
    shares: Sequence[float]
    datasets: Sequence[Boxes]
    by_ap: bool = False

    def weights(self, ap: Sequence[float] | None = None) -> list[F64 | None]:
        """The weights of the images of each dataset, float64 `[N]`; None where all would be 0: then
        all are drawn alike.

        Args:
            ap: of each class, in 0..1, nan where it is unknown; None before the first evaluation.
        """
        boxes = self._counted([np.bincount(d.labels, minlength=d.classes) for d in self.datasets])
        shown = self._counted([np.bincount(d.shown[1], minlength=d.classes) for d in self.datasets])
        out: list[F64 | None] = []
        for d, box_rate, image_rate in zip(self.datasets, boxes, shown):
            if self.kind == "repeat_factor":
                own = class_balanced_weights(d.images, d.image, d.labels, self.threshold, image_rate)
            elif self.kind == "class_balanced":
                own = class_aware_weights(d.images, *d.shown, image_rate)
            else:
                known = np.zeros(d.classes) if ap is None else ap
                own = image_weights_from_class_ap(d.images, d.image, d.labels, known, box_rate)
            if 0 < d.empty < d.images:  # they keep the part of the draws that tiles.empty gives them
                own[-d.empty :] = own[: -d.empty].mean()
            out.append(own if len(own) and own.max() > 0 else None)
        return out

    def _counted(self, counts: Sequence[I64]) -> list[F64]:
        """Of something counted by class in each dataset, how much of it an image has: one drawn from the mixture, or one of
        each dataset."""
        rates = [count / max(d.images, 1) for count, d in zip(counts, self.datasets)]
        if not self.together:
            return rates
        mean = np.asarray(self.shares, np.float64) @ np.stack(rates) / sum(self.shares)
        return [mean] * len(rates)

"""Interaction samples: from a key of the stream to the crops of two people and of both, and how they stand to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddptrain.config.data import AugmentConfig
from ddptrain.data.images.read import ImageCache
from ddptrain.data.samples.base import ImageSamples, draw_matrix, read_sized, to_native, view
from ddptrain.data.tables.pairs import Pairs, cut, geometry, turn_to, union
from ddptrain.data.tables.people import PeopleTable
from ddptrain.structures import Sample, SampleKey

CACHE_BYTES = 256 << 20
"""Decoded panoramas that each loader process keeps: the pairs of a frame share it."""


class PairSamples(ImageSamples):
    """Pairs of people of a mixture, see `ImageSamples`.

    `Sample.image` is uint8 `[S, S, 9]`: the first person, the second, and both, each cut out around the seam, letterboxed
    and augmented by the same draws. Targets: `classes` float32 `[C]`, 1 for each class of the pair; `geometry` float32 `[G]`
    (see `pairs.geometry`; no augmentation changes it); `boxes` float32 `[2, 4]` in pixels of the panorama.
    """

    def __init__(
        self,
        tables: Sequence[PeopleTable],
        pairs: Sequence[Pairs],
        truth: Sequence[np.ndarray],
        annotated: np.ndarray,
        image_size: int,
        augment: AugmentConfig | None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            tables: one per dataset, in the mixture's order.
            pairs: the samples of each.
            truth: bool `[pairs, C]` of each.
            annotated: bool `[datasets, C]`: the classes that each dataset labels.
            image_size: side of a crop as the network sees it, in pixels.
            augment: None for evaluation: letterbox only.
            seed: the run's seed; every draw is a function of it and the key's position.
        """
        self.tables, self.pairs, self.truth = list(tables), list(pairs), list(truth)
        self.annotated = annotated
        self.image_size = image_size
        self.augment = augment
        self.seed = seed
        self._cache = ImageCache(CACHE_BYTES)

    def files(self, dataset: int) -> PeopleTable:
        """The table of one dataset."""
        return self.tables[dataset]

    def file_of(self, key: SampleKey) -> int:
        """The frame of a pair."""
        return int(self.pairs[key.dataset].frame[key.index])

    def size(self, dataset: int) -> int:
        """Number of pairs of one dataset."""
        return len(self.pairs[dataset])

    def read(self, key: SampleKey) -> np.ndarray:
        """The panorama of a pair, uint8 `[H, W, 3]` RGB; not to be written into."""
        table, frame = self.tables[key.dataset], self.file_of(key)
        size = tuple(table.sizes[frame].tolist())
        return self._cache.get(table.path(frame), lambda path: read_sized(path, size, table.exif))

    def boxes(self, key: SampleKey) -> np.ndarray:
        """float32 `[2, 4]` of the two people."""
        return self.tables[key.dataset].boxes[self.pairs[key.dataset].people[key.index]]

    def make(self, key: SampleKey, image: np.ndarray) -> Sample:
        """The sample of a key from its panorama."""
        boxes = self.boxes(key)
        pixels, matrix = crops(image, boxes, self.image_size, self.augment, self.seed, key.position)
        a, b = boxes.astype(np.float64)
        size = (image.shape[1], image.shape[0])
        return Sample(
            key=key,
            image=pixels,
            targets={
                "classes": self.truth[key.dataset][key.index].astype(np.float32),
                "geometry": geometry(a[None], b[None], size)[0],
                "boxes": boxes,
            },
            annotated=self.annotated[key.dataset],
            to_native=matrix,
            native_size=size,
        )


def crops(
    image: np.ndarray, boxes: np.ndarray, size: int, augment: AugmentConfig | None = None, seed: int = 0, position: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Both people and their union as the network sees them; the person on the right is mirrored, so that both look at the
    other one when they look to the right.

    Args:
        image: uint8 `[H, W, 3]`, the panorama.
        boxes: `[2, 4]`, see `PeopleTable`.
        size: side of a crop in pixels.

    Returns:
        uint8 `[size, size, 9]`, and float32 `[2, 3]`: from pixels of the union's crop to pixels of the panorama, whose
        columns may be past its width.
    """
    a, b = boxes.astype(np.float64)
    around = union(a, b, image.shape[1])
    ahead = turn_to(a, b, image.shape[1])
    views = []
    for box, mirrored in ((a, ahead < 0), (b, ahead > 0), (around, False)):
        part = cut(image, box)
        part = np.ascontiguousarray(part[:, ::-1]) if mirrored else part
        # the same draws for all three: a flip, a zoom, a tint are of the whole scene
        matrix = draw_matrix((part.shape[1], part.shape[0]), size, augment, seed, position)
        views.append(view(part, matrix, size, augment, seed, position))
    back = to_native(matrix)
    back[:, 2] += np.floor(around[:2]).clip(0)
    return np.concatenate(views, 2), back

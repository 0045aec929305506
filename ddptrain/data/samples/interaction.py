"""Interaction samples: from a key of the stream to the crops of two people and of both, and how the two are positioned relative
to each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ddptrain.data.augment.view import ImageView
from ddptrain.data.images.pixels import size_of
from ddptrain.data.images.read import ImageCache
from ddptrain.data.samples.base import ImageSamples, to_native
from ddptrain.data.samples.plans import IMAGES, read_sized
from ddptrain.data.tables.pairs import PairTable, cut, geometry, turn_to, union
from ddptrain.data.tables.people import PeopleTable
from ddptrain.structures import Sample, SampleKey

CACHE_BYTES = 256 << 20
"""Decoded panoramas that each loader process keeps: the pairs of a frame share it."""


@dataclass(eq=False)
class PairSamples(ImageSamples[PeopleTable]):
    """Pairs of people of a mixture, see `ImageSamples`.

    `Sample.image` is uint8 `[S, S, 9]`: the first person, the second, and both, each cut out around the seam, letterboxed
    and augmented by the same draws. Targets: `classes` float32 `[C]`, 1 for each class of the pair; `geometry` float32 `[G]`
    (see `pairs.geometry`; no augmentation changes it); `boxes` float32 `[2, 4]` in pixels of the panorama.

    Args:
        pairs: the samples of each dataset.
        truth: bool `[pairs, C]` of each dataset.
    """

    pairs: Sequence[PairTable] = field(kw_only=True)
    truth: Sequence[np.ndarray] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._cache = ImageCache(CACHE_BYTES)

    def file_of(self, key: SampleKey) -> int:
        """The frame of a pair."""
        return int(self.pairs[key.dataset].frame[key.index])

    def size(self, dataset: int) -> int:
        """Number of pairs of one dataset."""
        return len(self.pairs[dataset])

    def read(self, key: SampleKey) -> np.ndarray:
        """The panorama of a pair, uint8 `[H, W, 3]` RGB; not to be written into."""
        frame = self.file_of(key)
        packed = self.packed(IMAGES, key.dataset, frame)
        if packed is not None:
            return packed
        table = self.tables[key.dataset]
        return self._cache.get((table.path(frame), table.exif), lambda: read_sized(table, frame))

    def needs(self, dataset: int) -> np.ndarray:
        """The frames of pairs."""
        return np.isin(np.arange(len(self.tables[dataset])), self.pairs[dataset].frame)

    def make(self, key: SampleKey, source: np.ndarray) -> Sample:
        """The sample of a key from its panorama."""
        boxes = self.tables[key.dataset].boxes[self.pairs[key.dataset].people[key.index]]
        pixels, back = crops(source, boxes, self.view(key.position))
        a, b = boxes.astype(np.float64)
        size = size_of(source)
        targets = {
            "classes": self.truth[key.dataset][key.index].astype(np.float32),
            "geometry": geometry(a[None], b[None], size)[0],
            "boxes": boxes,
        }
        return Sample(key, pixels, targets, self.annotated[key.dataset], back, size, weight=self.weight(key))


def crops(image: np.ndarray, boxes: np.ndarray, view: ImageView) -> tuple[np.ndarray, np.ndarray]:
    """Both people and their union as the network sees them; the person on the right is mirrored, so that both look at the
    other one when they look to the right. Of a scene that the view flips, that is the other person.

    Args:
        image: uint8 `[H, W, 3]`, the panorama.
        boxes: `[2, 4]`, see `PeopleTable`.
        view: of all three: a flip, a zoom, a tint are of the whole scene.

    Returns:
        uint8 `[S, S, 9]`, and float32 `[2, 3]`: from pixels of the union's crop to pixels of the panorama, whose columns may
        be past its width.
    """
    a, b = boxes.astype(np.float64)
    around = union(a, b, image.shape[1])
    ahead = turn_to(a, b, image.shape[1])
    if view.flipped:  # then the other one is on the right
        ahead = -ahead
    shown = []
    for box, mirrored in ((a, ahead < 0), (b, ahead > 0), (around, False)):
        part = cut(image, box)
        shown.append(view.show(np.ascontiguousarray(part[:, ::-1]) if mirrored else part))
    back = to_native(shown[-1][1])
    back[:, 2] += np.floor(around[:2]).clip(0)
    return np.concatenate([pixels for pixels, _ in shown], 2), back

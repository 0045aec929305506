"""The table of panoramas with people and who interacts with whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ddptrain.data.tables.base import DROP, I32, I64, Mask, Table, to_offsets
from ddptrain.data.tables.hashing import U64, hash_names, hash_rows, sum_rows


@dataclass(frozen=True, eq=False, kw_only=True)
class PeopleTable(Table):
    """Frames, people and interacting pairs of one dataset. N frames, P people, K pairs, M labels of pairs.

    A panorama is a circle: its last column lies beside its first one, the seam. A box is `(x1, y1, x2, y2)` in pixels with
    `0 <= x1 < width` and `x1 < x2 <= x1 + width`; one over the seam has `x2 > width`.

    Attributes:
        sequences: names of the sequences.
        labelled: bool `[N]`: who interacts is annotated in the frame; elsewhere nothing is known.
        offsets: int64 `[N + 1]`: frame i has the people `offsets[i]` to `offsets[i + 1]`.
        boxes: float32 `[P, 4]`.
        tracks: int32 `[P]`: the number in `pedestrian:N`.
        no_eval: bool `[P]`: the benchmark does not count this person.
        pairs: int32 `[K, 2]`: the two people of each interacting pair, each pair once, the lower row first, sorted.
        pair_offsets: int64 `[K + 1]`: pair k has the labels `pair_offsets[k]` to `pair_offsets[k + 1]`; it may have none.
        labels: int32 `[M]`: index into `names`; below 0 for one that is ignored.
        difficulty: int8 `[M]`: of each label, 1 easy to 3 hard.
    """

    of_images: ClassVar[tuple[str, ...]] = ("sizes", "labelled")

    sequences: tuple[str, ...]
    labelled: Mask
    offsets: I64
    boxes: npt.NDArray[np.float32]
    tracks: I32
    no_eval: Mask
    pairs: I32
    pair_offsets: I64
    labels: I32
    difficulty: npt.NDArray[np.int8]

    def samples_by_class(self) -> I64:
        """int64 `[kinds]`: how many pairs have each kind of interaction."""
        return np.bincount(self.labels, minlength=len(self.names))

    def to_classes(self, classes: tuple[str, ...], mapping: I32) -> PeopleTable:
        """Dropped labels are as if they were not in the file, and pairs that had only such labels do not interact; ignored
        labels stay, as `IGNORE`."""
        labels = mapping[self.labels].astype(np.int32)
        kept, before = labels != DROP, np.diff(self.pair_offsets)
        after = np.diff(to_offsets(kept)[self.pair_offsets])
        pairs = (after > 0) | (before == 0)
        return replace(
            self,
            names=classes,
            ignored_names=(),
            pairs=self.pairs[pairs],
            pair_offsets=to_offsets(after[pairs]),
            labels=labels[kept],
            difficulty=self.difficulty[kept],
        )

    def hash_contents(self) -> U64:
        people = hash_rows(len(self.boxes), [self.boxes, self.tracks, self.no_eval])
        out = super().hash_contents() + sum_rows(people, self.offsets)
        frame = np.searchsorted(self.offsets, self.pairs[:, 0], side="right") - 1
        place = self.pairs - self.offsets[frame][:, None]
        kinds = hash_rows(len(self.labels), [hash_names(self.names, self.labels), self.difficulty])
        np.add.at(out, frame, hash_rows(len(place), [place, sum_rows(kinds, self.pair_offsets)]))
        return out

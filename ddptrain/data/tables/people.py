"""Panoramas with people and who interacts with whom, in flat columns; see `table.py` for why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ddptrain.config.data import Exif


@dataclass(frozen=True, eq=False)
class PeopleTable:
    """Frames, people and interacting pairs of one dataset. N frames, P people, K pairs, M labels of pairs.

    A panorama is a circle: its last column lies beside its first one, the seam. A box is `(x1, y1, x2, y2)` in pixels with
    `0 <= x1 < width` and `x1 < x2 <= x1 + width`; one over the seam has `x2 > width`.

    Attributes:
        name: the dataset's name in the config.
        root: its folder.
        names: the dataset's own kinds of interaction; `labels` index them.
        sequences: names of the sequences.
        path_bytes: uint8, all image paths, one after the other.
        path_offsets: int64 `[N + 1]`: path i is `path_bytes[path_offsets[i]:path_offsets[i + 1]]`.
        sizes: int32 `[N, 2]`: width and height in pixels.
        sequence: int32 `[N]`: index into `sequences`.
        labelled: bool `[N]`: the frame tells who interacts; elsewhere nothing is known.
        offsets: int64 `[N + 1]`: frame i has the people `offsets[i]` to `offsets[i + 1]`.
        boxes: float32 `[P, 4]`.
        tracks: int32 `[P]`: the number in `pedestrian:N`.
        no_eval: bool `[P]`: the benchmark does not count this person.
        pairs: int32 `[K, 2]`: the two people of each interacting pair, each pair once, the lower row first, sorted.
        pair_offsets: int64 `[K + 1]`: pair k has the labels `pair_offsets[k]` to `pair_offsets[k + 1]`; it may have none.
        labels: int32 `[M]`: index into `names`.
        difficulty: int8 `[M]`: of each label, 1 easy to 3 hard.
        ignored_names: none; no benchmark ignores a kind of interaction.
        exif: how the frames are read.
    """

    name: str
    root: str
    names: tuple[str, ...]
    sequences: tuple[str, ...]
    path_bytes: npt.NDArray[np.uint8]
    path_offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    sequence: npt.NDArray[np.int32]
    labelled: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    tracks: npt.NDArray[np.int32]
    no_eval: npt.NDArray[np.bool_]
    pairs: npt.NDArray[np.int32]
    pair_offsets: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    difficulty: npt.NDArray[np.int8]
    ignored_names: tuple[str, ...] = ()
    exif: Exif = "apply"

    def __len__(self) -> int:
        return len(self.sizes)

    def samples_by_class(self) -> npt.NDArray[np.int64]:
        """int64 `[kinds]`: how many pairs have each kind of interaction."""
        return np.bincount(self.labels, minlength=len(self.names))

    def path(self, image: int) -> str:
        """Path of one frame."""
        start, stop = self.path_offsets[image], self.path_offsets[image + 1]
        return self.path_bytes[start:stop].tobytes().decode("utf-8", "surrogateescape")

"""Images that come twice, in one dataset or in two: byte by byte, or by their look.

The look of an image is its difference hash (N. Krawetz, "Kind of Like That", 2013): 9 x 8 grey means, and for each the
bit whether the next one in its row is brighter. Two images look the same when at most `DISTANCE` of 64 bits differ, and
16 x 16 grey means hardly (where little is in an image, such as a digit, bits say little): the same picture in another size
or compression, or the next frame of a calm video.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations_with_replacement
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ddptrain.data.tables.base import I64, Mask

DISTANCE = 3
LOOK = 0.06  # mean difference of grey means, in standard deviations of theirs, up to which two images look the same
_BANDS = 4  # of 16 bits each: where at most 3 bits differ, one band is equal
_GROUP = 512  # images with an equal band that are compared at once
_FLAT = 12  # grey levels between the brightest and the darkest mean, below which a hash says nothing

Seen = tuple[int, int, npt.NDArray[np.float16]]
_NONE: Seen = (0, 0, np.zeros(256, np.float16))


class Images(NamedTuple):
    """A set of images.

    Attributes:
        title: its name.
        paths: their files, or where in a file they stand.
        pixels: uint8 `[N, H, W]`, the images themselves where they have no files of their own.
    """

    title: str
    paths: Sequence[str]
    pixels: npt.NDArray[np.uint8] | None = None


class Twins(NamedTuple):
    """Images of the set `second` that stand in `first` too (where both are one set: that came before in it).

    Attributes:
        first, second: names of the sets.
        equal: how many are equal byte by byte.
        alike: how many more look the same.
        looked_at: images of `second` that were looked at.
        examples: some pairs (path in `first`, path in `second`), equal ones first.
    """

    first: str
    second: str
    equal: int
    alike: int
    looked_at: int
    examples: tuple[tuple[str, str], ...]


def find_twins(sets: Sequence[Images], threads: int = 4, examples: int = 3, undecoded: list[str] | None = None) -> list[Twins]:
    """The twins within every set and between every two, those pairs of sets only that have any.

    Args:
        sets: files that cannot be decoded are left out.
        threads: that read and decode.
        examples: pairs named at most for each pair of sets.
        undecoded: takes the files that were left out.
    """
    paths = [path for own in sets for path in own.paths]
    owner = np.repeat(np.arange(len(sets)), [len(own.paths) for own in sets])
    with ThreadPoolExecutor(threads) as pool:
        hashes_of = [pool.map(_hashes, own.paths) if own.pixels is None else map(_pixel_hashes, own.pixels) for own in sets]
        seen = [h for own in hashes_of for h in own]
    if undecoded is not None:
        undecoded += [path for path, hashes in zip(paths, seen) if hashes is _NONE]
    exact, look = np.array([s[:2] for s in seen], np.uint64).reshape(-1, 2).T
    pairs = _pairs(exact, look)
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
    equal = exact[pairs[:, 0]] == exact[pairs[:, 1]]
    kept = equal | _alike(pairs, [s[2] for s in seen])
    pairs, equal = pairs[kept], equal[kept]
    out = []
    for a, b in combinations_with_replacement(range(len(sets)), 2):
        here = (owner[pairs[:, 0]] == a) & (owner[pairs[:, 1]] == b)
        if here.any():
            same = np.unique(pairs[here & equal, 1])
            alike = np.setdiff1d(pairs[here, 1], same)
            shown = np.concatenate([pairs[here & equal], pairs[here & np.isin(pairs[:, 1], alike)]])[:examples]
            named = tuple((paths[i], paths[j]) for i, j in shown.tolist())
            out.append(Twins(sets[a].title, sets[b].title, len(same), len(alike), int((exact[owner == b] > 0).sum()), named))
    return out


def look_hash(image: np.ndarray) -> int:
    """Difference hash of an image, uint8 `[H, W]` grey, as 64 bits; 0 for one without contrast."""
    means = cv2.resize(image, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int64)
    if means.max() - means.min() < _FLAT:
        return 0
    return int.from_bytes(np.packbits(means[:, 1:] > means[:, :-1]).tobytes(), "big")


def _grey_means(image: np.ndarray) -> npt.NDArray[np.float16]:
    """Grey means of 16 x 16 parts, float16 `[256]`, whatever the brightness and the contrast."""
    means = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    return ((means - means.mean()) / max(float(means.std()), 1.0)).astype(np.float16)


def _alike(pairs: I64, means: Sequence[npt.NDArray[np.float16]]) -> Mask:
    """bool `[p]`: pairs whose grey means hardly differ."""
    table = np.array(means, np.float16).reshape(-1, 256)
    parts = np.array_split(pairs, len(pairs) // 2**14 + 1)
    close = [np.abs(table[p[:, 0]] - table[p[:, 1]]).mean(1, dtype=np.float64) <= LOOK for p in parts]
    return np.concatenate(close)


def _hashes(path: str) -> Seen:
    """Hash of the bytes (never 0) and of the look, and the grey means; zeros for a file that cannot be decoded."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        # an eighth of the size is decoded in a fraction of the time, and is still larger than 9 x 8
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8) if data else None
    except (OSError, cv2.error):
        return _NONE
    if image is not None and min(image.shape) < 16:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return _NONE if image is None else (_hash(data), look_hash(image), _grey_means(image))


def _pixel_hashes(image: npt.NDArray[np.uint8]) -> Seen:
    """The same of an image that has no file."""
    return _hash(image.tobytes()), look_hash(image), _grey_means(image)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") | 1


def _pairs(exact: npt.NDArray[np.uint64], look: npt.NDArray[np.uint64]) -> I64:
    """int64 `[p, 2]`: all pairs i < j that are equal or look the same."""
    pairs = [_close(np.flatnonzero(exact), exact, exact, 0)]
    rows = np.flatnonzero(look)
    for band in range(_BANDS):
        pairs.append(_close(rows, (look >> np.uint64(16 * band)) & np.uint64(0xFFFF), look, DISTANCE))
    return np.unique(np.concatenate(pairs), axis=0)


def _close(rows: I64, band: npt.NDArray[np.uint64], code: npt.NDArray[np.uint64], distance: int) -> I64:
    """Pairs i < j among `rows` with an equal band whose codes differ in at most `distance` bits; of more than `_GROUP`
    with one band, those near in the order of codes."""
    rows = rows[np.lexsort((code[rows], band[rows]))]
    starts = np.flatnonzero(np.diff(band[rows], prepend=band[rows[:1]] ^ np.uint64(1)))
    pairs = [np.zeros((0, 2), np.int64)]
    for group in np.split(rows, starts[1:]):
        for part in np.array_split(group, max(1, -(-len(group) // _GROUP))):
            if len(part) > 1:
                i, j = np.triu_indices(len(part), 1)
                near = _bits(code[part[i]] ^ code[part[j]]) <= distance
                pairs.append(np.sort(np.stack([part[i[near]], part[j[near]]], 1), 1))
    return np.concatenate(pairs)


def _bits(values: npt.NDArray[np.uint64]) -> I64:
    """Number of bits that are 1."""
    return np.unpackbits(values[:, None].view(np.uint8), axis=1).sum(1, dtype=np.int64)

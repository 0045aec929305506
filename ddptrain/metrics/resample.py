"""Metrics over images that are drawn again with replacement: how far a number would move with other images of the same kind.

Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 1979. A draw gives each image a weight,
how often it was drawn; every metric here is a function of such weights, computed for many draws at once. With weights of 0 and
1 it is the metric of some of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.matches import Matches
from ddptrain.system.limits import available_cores

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
DRAWS = 1000
FEWEST = 10
"""Images with fewer than which draws say nothing of other images."""
AT_ONCE = 100
"""Draws that are computed together: more do not fit the processor's cache."""
# where a recall of k / 100 just misses the k-th of pycocotools' recalls, which are rounded up there
_LATE = np.linspace(0, 1, 101) > np.arange(101) / 100
_NUDGE = np.where(_LATE, -1e-4, 1e-4).astype(np.float32)


def draw_weights(group: NDArray[np.integer], draws: int = DRAWS, seed: int = 0) -> Iterator[F32]:
    """How often each image is drawn, `[images, at most AT_ONCE]` at a time: from each group as many as it has.

    Args:
        group: int `[images]`: number of each image's dataset, never falling.
    """
    sizes = np.bincount(group)
    for start in range(0, draws, AT_ONCE):
        yield _draw(sizes, start, min(AT_ONCE, draws - start), seed)


def _draw(sizes: NDArray[np.integer], start: int, count: int, seed: int) -> F32:
    """The draws `start:start + count`."""
    rng = np.random.default_rng((seed, start))
    drawn = [rng.multinomial(n, np.full(n, 1 / n), count) for n in sizes if n]
    return np.ascontiguousarray(np.concatenate([np.zeros((count, 0), np.int64), *drawn], 1).T, np.float32)


def average_precision(result: NDArray[np.int8], image: NDArray[np.integer], truths: NDArray[np.integer], weights: F32) -> F64:
    """COCO's average precision of one class: the mean of the best precision at a recall of at least 0, 0.01, …, 1.

    Only at a hit does the recall rise, so that only hits are looked at: D draws cost D times (detections + hits).

    Args:
        result: int8 `[T, d]`, best detection first: 1 a hit, 0 a false alarm, -1 what does not count.
        image: int `[d]`.
        truths: int `[images]`: the number of objects of the class in each image.
        weights: float32 `[images, D]`.

    Returns:
        float64 `[T, D]` in 0..1; NaN where no object was drawn.
    """
    total = (truths[None] @ weights).astype(np.float32)[0]
    out = np.zeros((len(result), weights.shape[1]))
    hits_of = [np.flatnonzero(row == 1) for row in result]
    end = max((rows[-1] + 1 for rows in hits_of if len(rows)), default=0)
    result, image = result[:, :end], image[:end]
    # most detections count at all overlaps or at none: what is drawn of these is summed once, the others are added or taken off
    usual = (result >= 0).mean(0) > 0.5
    usual_drawn, before = _summed(weights, image[usual]), np.append(0, usual.cumsum())
    scale = 100 / np.maximum(total, 1)
    for t, hits in enumerate(hits_of):
        if not len(hits):
            continue
        found, seen = _summed(weights, image[hits])[1:], usual_drawn[before[hits + 1]]
        other = np.flatnonzero((result[t] >= 0) != usual)
        if len(other):
            signed = np.where(usual[other], -1, 1).astype(np.float32)[:, None]
            seen += _summed(weights, image[other], signed)[np.searchsorted(other, hits, "right")]
        precision = found / np.maximum(seen, 1, out=seen)
        np.maximum.accumulate(precision[::-1], 0, out=precision[::-1])
        reached = found * scale
        reached += _NUDGE[np.rint(reached).astype(np.intp)]
        np.floor(reached, out=reached)
        # each hit has the recalls that it is the first to reach, the first hit recall 0, too
        reached[1:] -= reached[:-1].copy()
        out[t] = (np.einsum("hd,hd->d", precision, reached) + precision[0]) / 101
    out[:, total == 0] = np.nan
    return out


def _summed(weights: F32, image: NDArray[np.integer], factor: float | F32 = 1) -> F32:
    """float32 `[n + 1, D]`: the weights of the first 0, 1, …, n of the images `[n]`."""
    out = np.zeros((len(image) + 1, weights.shape[1]), np.float32)
    np.cumsum(weights[image] * factor if np.ndim(factor) else weights[image], 0, out=out[1:])
    return out


AREAS = {"": 0, "s": 1, "m": 2, "l": 3}
OVERLAPS: Mapping[str, slice] = {"": slice(None), "50": slice(0, 1), "75": slice(5, 6)}


def detection_metrics(matches: Matches, classes: Sequence[str], weights: F32, keys: Sequence[str]) -> dict[str, F64]:
    """COCO's metrics of detections for each draw, `[D]`.

    Args:
        keys: of `AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`: each is given in all and, as `class/<class>/<key>`, of each class.
        weights: float32 `[images, D]`.
    """
    parts = {key: (OVERLAPS[key[2:]] if key[2:] in OVERLAPS else OVERLAPS[""], AREAS.get(key[2:], 0)) for key in keys}
    areas = {area for _, area in parts.values()}
    of_class: dict[str, list[F64]] = {key: [] for key in keys}
    for label in range(len(classes)):
        rows = matches.of_class(label)
        values = {}
        for area in areas:
            own = matches.counts[area] & (matches.truth_label == label)
            truths = np.bincount(matches.truth_image[own], minlength=matches.images)
            values[area] = average_precision(matches.result[area, :, rows], matches.image[rows], truths, weights)
        for key, (overlaps, area) in parts.items():
            of_class[key].append(values[area][overlaps].mean(0))
    out = {key: mean_known(np.array(values)) for key, values in of_class.items()}
    return out | {f"class/{c}/{key}": values[k] for key, values in of_class.items() for k, c in enumerate(classes)}


def mean_known(values: F64) -> F64:
    """The mean over the first axis of the values that are numbers; NaN where none is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(0) / known.sum(0)


def over_draws(
    metrics: Callable[[F32], Mapping[str, F64]], group: NDArray[np.integer], draws: int, seed: int
) -> dict[str, F64]:
    """The metrics `[draws]` of resampled images, by name; computed in as many threads as there are cores, at most 8."""
    sizes = np.bincount(group)

    def part(start: int) -> Mapping[str, F64]:
        return metrics(_draw(sizes, start, min(AT_ONCE, draws - start), seed))

    with ThreadPoolExecutor(min(8, available_cores())) as pool:
        parts = list(pool.map(part, range(0, draws, AT_ONCE)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: F64, level: float = 0.95) -> tuple[float, float]:
    """The middle part of the draws that are numbers; NaN where there are none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

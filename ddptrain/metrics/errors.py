"""What kind each error of a detector is, and what it costs in average precision.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020. A false alarm is, in this
order, the first of: badly placed (its class is right, IoU 0.1 to 0.5), of the wrong class (IoU 0.5 with an object of another
class), a duplicate (of an object that a more confident detection has found), background (IoU below 0.1 with everything), or
both badly placed and of the wrong class. An object that is neither found nor the aim of the first two is missed. The cost of a
kind is what AP50 gains when only that kind is corrected: the best detection of an object that is badly placed or of the wrong
class becomes right, all other false alarms of the kind are taken away, and what is missed is not asked for.

Differences from the package tidecv: detections on ignored boxes are no errors, and classes without truth do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.matches import F64, I64, Matches, by_class
from ddptrain.metrics.resample import average_precision

Mask = NDArray[np.bool_]
KINDS = ("class", "location", "both", "duplicate", "background", "missed")
CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
NONE = -1
BACKGROUND_IOU = 0.1
_AT_ONCE = 2**20


class Overlaps(NamedTuple):
    """Pairs of a detection and a box of its image that overlap by `BACKGROUND_IOU` at least, of any two classes; by detection.

    Attributes:
        detection, box: int64 `[P]`: rows.
        iou: float64 `[P]`.
    """

    detection: I64
    box: I64
    iou: F64

    def best(self, kept: Mask, count: int) -> tuple[F64, I64]:
        """Of each of `count` detections its greatest overlap among the pairs `kept`, 0 for none, and that box, -1."""
        iou, box = np.zeros(count), np.full(count, -1)
        rows = np.flatnonzero(kept)
        order = rows[np.lexsort((-self.box[rows], self.iou[rows]))]  # the last one assigned stays
        iou[self.detection[order]], box[self.detection[order]] = self.iou[order], self.box[order]
        return iou, box


def find_overlaps(matches: Matches) -> Overlaps:
    """The overlaps of all detections with the boxes that are to be found; the memory grows with the pairs that overlap only."""
    wanted = np.flatnonzero(matches.counts[0])
    image = matches.truth_image[wanted]
    first, last = np.searchsorted(image, matches.image), np.searchsorted(image, matches.image, "right")
    parts = [_pairs(matches, wanted, first, last, rows) for rows in _pieces(last - first)]
    parts.append((np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)))
    return Overlaps(*(np.concatenate(column) for column in zip(*parts)))


def _pieces(counts: I64) -> Iterator[slice]:
    """Runs of detections with about `_AT_ONCE` pairs."""
    ends = np.append(0, counts.cumsum())
    start = 0
    while start < len(counts):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + _AT_ONCE, "right")) - 1)
        yield slice(start, stop)
        start = stop


def _pairs(matches: Matches, wanted: I64, first: I64, last: I64, rows: slice) -> tuple[I64, I64, F64]:
    counts = (last - first)[rows]
    detection = np.repeat(np.arange(rows.start, rows.stop), counts)
    place = np.arange(len(detection)) - np.repeat(counts.cumsum() - counts, counts)
    box = wanted[np.repeat(first[rows], counts) + place]
    a, b = matches.box[detection].astype(np.float64), matches.truth_box[box].astype(np.float64)
    common = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - common
    iou = np.divide(common, union, out=np.zeros(len(common)), where=union > 0)
    near = iou >= BACKGROUND_IOU
    return detection[near], box[near], iou[near]


@dataclass(frozen=True, eq=False)
class Errors:
    """The errors at IoU 0.5. D detections, G boxes.

    Attributes:
        kind: int8 `[D]`: index into `KINDS`; `NONE` of detections that are right or do not count.
        aim: int64 `[D]`: the box that the detection was probably meant for, -1 for none.
        missed: bool `[G]`.
        fixes: bool `[D]`: the detection would be the right one of its aim, if its class or its place were corrected.
        count: the number of errors of each kind.
        cost: what AP50 would gain without each kind, in 0..1; also `false alarms` and `misses`: all of either, of any kind.
    """

    kind: NDArray[np.int8]
    aim: I64
    missed: Mask
    fixes: Mask
    count: dict[str, int]
    cost: dict[str, float]


def find_errors(matches: Matches, pairs: Overlaps) -> Errors:
    """Name every error, and price each kind."""
    n, pos = len(matches.label), float(matches.thresholds[0])
    result = matches.result[0, 0]
    used = np.zeros(len(matches.truth_label), bool)
    used[matches.truth[0, result == 1]] = True
    same = matches.label[pairs.detection] == matches.truth_label[pairs.box]
    own, own_box = pairs.best(same, n)
    other, other_box = pairs.best(~same, n)
    taken, taken_box = pairs.best(same & used[pairs.box], n)
    conditions = {
        LOCATION: (own >= BACKGROUND_IOU) & (own <= pos),
        CLASS: other >= pos,
        DUPLICATE: taken >= pos,
        BACKGROUND: np.maximum(own, other) <= BACKGROUND_IOU,
    }
    kind = np.select([result != 0, *conditions.values()], [NONE, *conditions], BOTH).astype(np.int8)
    nearest = np.where(own > other, own_box, other_box)
    aims = [own_box, other_box, taken_box, nearest]
    aim = np.select([kind == k for k in (LOCATION, CLASS, DUPLICATE, BOTH)], aims, -1)
    fixes = _fixes(matches, kind, aim, used)
    usable = np.zeros(len(used), bool)
    usable[aim[(kind == CLASS) | (kind == LOCATION)]] = True
    missed = matches.counts[0] & ~used & ~usable
    count = {name: int((kind == k).sum()) for k, name in enumerate(KINDS)} | {"missed": int(missed.sum())}
    return Errors(kind, aim, missed, fixes, count, _costs(matches, kind, aim, fixes, missed, used))


def _fixes(matches: Matches, kind: NDArray[np.int8], aim: I64, used: Mask) -> Mask:
    """Of each box that nothing has found the most confident of those that were meant for it."""
    meant = np.flatnonzero(((kind == CLASS) | (kind == LOCATION)) & ~used[aim])
    order = meant[np.argsort(-matches.score[meant], kind="stable")]
    out = np.zeros(len(kind), bool)
    out[order[np.unique(aim[order], return_index=True)[1]]] = True
    return out


def _costs(matches: Matches, kind: NDArray[np.int8], aim: I64, fixes: Mask, missed: Mask, used: Mask) -> dict[str, float]:
    result, truths = matches.result[0, 0], matches.truths()
    hit, counted, label = result == 1, result >= 0, matches.label

    def ap(hit: Mask, counted: Mask, label: I64, score: NDArray[np.floating] = matches.score, wanted: I64 = truths) -> float:
        rows = by_class(label, score)
        rows = rows[counted[rows]]
        image, ones = np.zeros(len(rows), np.int64), np.ones((1, 1), np.float32)
        ends = np.searchsorted(label[rows], np.arange(matches.classes + 1))
        values = [
            average_precision(hit[rows[a:b]][None].astype(np.int8), image[a:b], wanted[k : k + 1], ones)[0]
            for k, (a, b) in enumerate(pairwise(ends))
        ]
        known = np.array(values)[truths > 0]  # of a class of which nothing is found all may be left out: it gains nothing
        return float(np.nan_to_num(known).mean()) if len(known) else float("nan")

    base = ap(hit, counted, label)
    out = {}
    for k, name in enumerate(KINDS[:MISSED]):
        right = (kind == k) & fixes
        moved = np.where(right, matches.truth_label[aim], label)
        out[name] = ap(hit | right, counted & ((kind != k) | right), moved)
    lost = np.bincount(matches.truth_label[missed], minlength=matches.classes)
    out["missed"] = ap(hit, counted, label, wanted=truths - lost)
    out["false alarms"] = ap(hit, counted, label, np.where(hit, 1.0, 0.0))
    unfound = np.bincount(matches.truth_label[matches.counts[0] & ~used], minlength=matches.classes)
    out["misses"] = ap(hit, counted, label, wanted=truths - unfound)
    return {name: max(value - base, 0.0) for name, value in out.items()}

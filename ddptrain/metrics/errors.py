"""What kind each error of a detector is, and what it costs in average precision.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020. A false alarm is, in this
order, the first of: badly placed (its class is right, IoU 0.1 to 0.5), of the wrong class (IoU 0.5 with an object of another
class), a duplicate (of an object that a more confident detection has found), background (IoU below 0.1 with everything), or
both badly placed and of the wrong class. An object that is neither found nor the aim of the first two is missed. The cost of a
kind is what AP50 gains when only that kind is corrected: the best detection of an object that is badly placed or of the wrong
class becomes right, all other false alarms of the kind are taken away, and what is missed is not asked for.

Differences from the package tidecv: detections on ignored boxes are not errors, and classes without truth do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth
from ddptrain.metrics.matches import F64, I64, Matches, by_class
from ddptrain.metrics.pairs import Pairs, find_pairs
from ddptrain.metrics.resample import average_precision

Mask = NDArray[np.bool_]
KINDS = ("class", "location", "both", "duplicate", "background", "missed")
CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
NONE = -1
BACKGROUND_IOU = 0.1


def find_overlaps(matches: Matches) -> Pairs:
    """The detections and the boxes to be found, of any two classes, that overlap by `BACKGROUND_IOU` at least; by detection."""
    wanted = np.flatnonzero(matches.counts[0])
    none, one_class = np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
    ends = np.searchsorted(matches.truth_image[wanted], np.arange(matches.images + 1))
    boxes, area = matches.truth_box[wanted], matches.truth_area[wanted]
    truth = GroundTruth("", boxes, one_class, none, none, area, ends, np.ones(1, bool))
    found = DetectionArrays(matches.image, matches.box, matches.score, np.zeros_like(matches.label))
    pairs = find_pairs(found, truth, BACKGROUND_IOU)
    return pairs._replace(box=wanted[pairs.box])


def _best(pairs: Pairs, count: int) -> tuple[F64, I64]:
    """Of each of `count` detections its greatest overlap, 0 for none, and that box, -1."""
    overlap, box = np.zeros(count), np.full(count, -1)
    detections, first = np.unique(pairs.detection, return_index=True)
    overlap[detections], box[detections] = pairs.overlap[first], pairs.box[first]
    return overlap, box


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


def find_errors(matches: Matches, pairs: Pairs) -> Errors:
    """Name every error, and price each kind."""
    n, pos = len(matches.label), float(matches.thresholds[0])
    result = matches.result[0, 0]
    used = np.zeros(len(matches.truth_label), bool)
    used[matches.truth[0, result == 1]] = True
    same = matches.label[pairs.detection] == matches.truth_label[pairs.box]
    own, own_box = _best(pairs.where(same), n)
    other, other_box = _best(pairs.where(~same), n)
    taken, taken_box = _best(pairs.where(same & used[pairs.box]), n)
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
    meant = np.flatnonzero((kind == CLASS) | (kind == LOCATION))  # only these have an aim, and there may be no box at all
    meant = meant[~used[aim[meant]]]
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
        moved = label.copy()
        moved[right] = matches.truth_label[aim[right]]
        out[name] = ap(hit | right, counted & ((kind != k) | right), moved)
    lost = np.bincount(matches.truth_label[missed], minlength=matches.classes)
    out["missed"] = ap(hit, counted, label, wanted=truths - lost)
    out["false alarms"] = ap(hit, counted, label, np.where(hit, 1.0, 0.0))
    unfound = np.bincount(matches.truth_label[matches.counts[0] & ~used], minlength=matches.classes)
    out["misses"] = ap(hit, counted, label, wanted=truths - unfound)
    return {name: max(value - base, 0.0) for name, value in out.items()}

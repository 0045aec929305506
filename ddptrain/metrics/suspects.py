"""Labels that are probably wrong: where a detector that is usually right contradicts the truth with confidence.

Each contradiction has a strength in 0..1, and a rarity: of what the detector claims of a class at least as strongly, the part
that contradicts labels in that way. What a detector often gets wrong (small objects, say) says little about the labels.
The idea is that of confident learning (Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR
2021), here by the order of strengths in place of estimated probabilities.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.matches import F64, I64, Matches
from ddptrain.metrics.pairs import Pairs

KINDS = ("wrong class", "box missing", "box misplaced", "no object")
CLASS, ADDED, PLACE, NO_OBJECT = range(4)
LEAST = 0.25
"""Strength below which a contradiction is not listed."""
SUPPORT_IOU = 0.3
"""Overlap from which on a detection of any class speaks for an object."""


class Suspects(NamedTuple):
    """Suspected labels, the most suspicious first. S rows.

    Attributes:
        kind: int8 `[S]`: index into `KINDS`.
        image: int64 `[S]`.
        box: int64 `[S]`: row of the label, -1 where one is missing.
        detection: int64 `[S]`: row of the detection that contradicts it, -1 where none speaks for it.
        strength: float64 `[S]` in 0..1: the confidence of the contradiction.
        rarity: float64 `[S]` in 0..1: the part of like claims (or labels) that is as contrary; low is suspicious.
    """

    kind: NDArray[np.int8]
    image: I64
    box: I64
    detection: I64
    strength: F64
    rarity: F64

    def select(self, rows: I64) -> Suspects:
        """Some of them, in another order."""
        columns: list[Any] = [column[rows] for column in self]
        return Suspects(*columns)


def find_suspects(matches: Matches, pairs: Pairs) -> Suspects:
    """Rank the contradictions between detections and labels; each label and each detection appears once."""
    score, same = matches.score.astype(np.float64), matches.label[pairs.detection] == matches.truth_label[pairs.box]
    pos, g = float(matches.thresholds[0]), len(matches.truth_label)
    own = _highest(score, pairs, same & (pairs.overlap >= pos), g)[0]
    seen = _highest(score, pairs, pairs.overlap >= SUPPORT_IOU, g)[0]
    free = _unclaimed(matches, pairs, same)
    other, other_by = _highest(score, pairs, ~same & (pairs.overlap >= pos), g)
    near, near_by = _highest(score, pairs, same & (pairs.overlap < pos) & free[pairs.detection], g)
    labels = np.flatnonzero(matches.counts[0])
    alarms = np.flatnonzero(free)
    parts = [
        _claims(matches, CLASS, labels, (other * (1 - own))[labels], other_by[labels]),
        _claims(matches, PLACE, labels, (near * (1 - own))[labels], near_by[labels]),
        _claims(matches, ADDED, np.full(len(alarms), -1), score[alarms], alarms),
        _silence(matches, labels, 1 - seen[labels]),
    ]
    columns: list[Any] = [np.concatenate(column) for column in zip(*parts)]
    return _ranked(Suspects(*columns))


def _highest(score: F64, pairs: Pairs, kept: NDArray[np.bool_], boxes: int) -> tuple[F64, I64]:
    """Of each box the highest score among the pairs `kept`, 0 for none, and whose it is, -1."""
    best, by = np.zeros(boxes), np.full(boxes, -1)
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(score[pairs.detection[rows]], kind="stable")]  # the last one assigned stays
    best[pairs.box[rows]], by[pairs.box[rows]] = score[pairs.detection[rows]], pairs.detection[rows]
    return best, by


def _unclaimed(matches: Matches, pairs: Pairs, same: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool `[D]`: false alarms that are neither on a label, of any class, nor a second answer to a detection of their class."""
    alarm = matches.result[0, 0] == 0
    alarm[pairs.detection[pairs.overlap >= float(matches.thresholds[0])]] = False
    return alarm


def _claims(matches: Matches, kind: int, labels: I64, strength: F64, by: I64) -> Suspects:
    """Detections `by` that contradict labels, or stand where none is. The rarity is their part of what is claimed of
    their class at least as strongly; the others are right."""
    kept = by >= 0
    labels, strength, by = labels[kept], strength[kept], by[kept]
    rarity, right = np.ones(len(by)), matches.result[0, 0] == 1
    for k in range(matches.classes):
        own = np.flatnonzero(matches.label[by] == k)
        as_strong = _at_least(strength[own], strength[own])
        part = as_strong / (as_strong + _at_least(matches.score[right & (matches.label == k)], strength[own]))
        # few are right with the very highest confidence: a stronger contradiction is no less suspicious than a weaker one
        order = np.argsort(strength[own], kind="stable")
        rarity[own[order]] = np.minimum.accumulate(part[order])
    return Suspects(np.full(len(by), kind, np.int8), matches.image[by], labels, by, strength, rarity)


def _silence(matches: Matches, labels: I64, strength: F64) -> Suspects:
    """Labels that no detection speaks for; the rarity is the part that they are of the labels of their class."""
    rarity = np.ones(len(labels))
    for k in range(matches.classes):
        own = np.flatnonzero(matches.truth_label[labels] == k)
        rarity[own] = _at_least(strength[own], strength[own]) / max(len(own), 1)
    none = np.full(len(labels), -1)
    return Suspects(np.full(len(labels), NO_OBJECT, np.int8), matches.truth_image[labels], labels, none, strength, rarity)


def _at_least(values: NDArray[np.floating], bounds: F64) -> I64:
    """How many of the values reach each bound."""
    return len(values) - np.searchsorted(np.sort(values), bounds)


def _ranked(found: Suspects) -> Suspects:
    """Those that are strong enough, the rarest first, of equal ones the strongest; what is said of a label or by a detection a
    second time goes."""
    rows = np.flatnonzero(found.strength >= LEAST)
    rows = rows[np.lexsort((-found.strength[rows], found.rarity[rows]))]
    for column in (found.box, found.detection):
        claimed = column[rows]
        first = np.zeros(len(rows), bool)
        first[np.unique(claimed, return_index=True)[1]] = True
        rows = rows[first | (claimed < 0)]
    return found.select(rows)

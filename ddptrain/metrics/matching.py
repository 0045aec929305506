"""Which detection finds which box of the truth, by COCO's rules, for all images, classes, overlaps and sizes at once.

In each image and class the detections choose in the order of their scores, each the free box that it overlaps most. Since every
box would have the best detection that it can get, this is the only stable matching, and deferred acceptance (Gale and Shapley,
"College Admissions and the Stability of Marriage", 1962) finds it for everything together: each detection asks for the box that
it likes most, each box keeps the best that asks, and who is sent away asks for the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth, scorable
from ddptrain.metrics.matches import F64, I64, Matches
from ddptrain.metrics.pairs import Pairs, find_pairs
from ddptrain.structures import COCO_AREAS

Mask = NDArray[np.bool_]
THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's IoU from which on a box is found."""
SIZES = ((0.0, 1e10), (0.0, COCO_AREAS[0]), COCO_AREAS, (COCO_AREAS[1], 1e10))
"""COCO's ranges of areas in square pixels, ends included: all, small, medium, large."""


def match(
    truth: GroundTruth,
    detections: DetectionArrays,
    max_detections: int | None = 100,
    thresholds: F64 = THRESHOLDS,
    sizes: tuple[tuple[float, float], ...] = SIZES,
) -> Matches:
    """Match the detections of one dataset.

    Args:
        truth: its ignore regions are crowds of every class.
        detections: images in any order; those of one image that have equal scores count in the order in which they stand.
        max_detections: how many of each class count in an image, best first; None for all.
        thresholds: the overlaps that are enough, above 0, rising.
        sizes: ranges of areas, the first of which holds all.

    Raises:
        ValueError: an image or class out of range, or a box or score that is not a finite number.
    """
    rows = _in_order(detections, scorable(truth, detections), len(truth.annotated), max_detections)
    found = detections.select(rows)
    label = np.where(truth.ignore, -1, truth.labels).astype(np.int64)
    shared = truth.ignore | truth.crowd
    low, high = np.array(sizes).T[:, :, None]
    counts = truth.annotated[label] & ~shared & (truth.area >= low) & (truth.area <= high)
    area = (found.boxes[:, 2:].astype(np.float64) - found.boxes[:, :2]).prod(1)
    outside = (area < low) | (area > high)
    # at most just below 1, as in pycocotools: the overlap of equal boxes may come out a rounding smaller
    enough = np.minimum(thresholds, 1 - 1e-10)
    pairs = find_pairs(found, truth, float(enough[0]))
    owner = _settle(pairs, counts[0], shared, enough, np.full((len(enough), len(area)), -1, np.int32))
    owners = chain([owner], _of_sizes(pairs, counts, shared, enough, owner, found.image * len(truth.annotated) + found.labels))
    return Matches(
        thresholds=thresholds,
        images=truth.images,
        classes=len(truth.annotated),
        row=rows,
        image=found.image.astype(np.int64, copy=False),
        label=found.labels.astype(np.int64, copy=False),
        score=found.scores,
        box=found.boxes,
        result=np.stack([_judge(o, c, out) for o, c, out in zip(owners, counts, outside, strict=True)]),
        truth=owner,
        truth_image=truth.image_of_boxes(),
        truth_label=label,
        truth_area=truth.area.astype(np.float64),
        truth_box=truth.boxes,
        counts=counts,
    )


def _in_order(detections: DetectionArrays, known: Mask, classes: int, most: int | None) -> I64:
    """Rows of the best of each image and class, in the order of `Matches`; `known` bool `[n]`: which can be scored."""
    rows = np.lexsort((detections.image, -detections.scores, detections.labels))
    rows = rows if known.all() else rows[known[rows]]
    group = detections.image[rows] * classes + detections.labels[rows]
    by_group = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[by_group], prepend=-1))
    lengths = np.diff(starts, append=len(group))
    if most is None or lengths.max(initial=0) <= most:
        return rows
    rank = np.arange(len(group)) - np.repeat(starts, lengths)
    return rows[np.sort(by_group[rank < most])]


def _settle(pairs: Pairs, counted: Mask, shared: Mask, enough: F64, owner: NDArray[np.int32]) -> NDArray[np.int32]:
    """Fill in, and return, the row of the box that each detection of some pairs is matched with, at each overlap `[T, D]`."""
    for level, least in enumerate(enough):
        close = pairs.where(pairs.overlap >= least)
        good = counted[close.box]
        # who can have a box that counts has no wish for any other
        for wished in (good, ~good):
            wished = wished & (owner[level, close.detection] < 0)
            detection, box = assign(close.detection[wished], close.box[wished], shared)
            owner[level, detection] = box
    return owner


def _of_sizes(
    pairs: Pairs, counts: Mask, shared: Mask, enough: F64, owner: NDArray[np.int32], group: I64
) -> Iterator[NDArray[np.int32]]:
    """What `owner` of all sizes becomes for each further size; `group` int64 `[D]` is the image and class of a detection."""
    # which boxes count matters only to detections that overlap several sizes, and to others of their image and class
    differ = (counts[:, pairs.box[1:]] != counts[:, pairs.box[:-1]]).any(0) & (np.diff(pairs.detection) == 0)
    mixed = np.isin(group, group[pairs.detection[1:][differ]])
    few = pairs.where(mixed[pairs.detection])
    for counted in counts[1:]:
        own = owner.copy()
        own[:, mixed] = -1
        yield _settle(few, counted, shared, enough, own)


def _judge(owner: NDArray[np.int32], counted: Mask, outside: Mask) -> NDArray[np.int8]:
    """`Matches.result` of one size, from the boxes of the detections and which of both are of that size."""
    result = np.repeat(-outside.astype(np.int8)[None], len(owner), 0)
    matched = np.flatnonzero(owner >= 0)
    result.flat[matched] = np.where(counted[owner.flat[matched]], 1, -1)
    return result


def assign(detection: I64, box: I64, shared: Mask) -> tuple[I64, I64]:
    """Give each detection the box that it likes most of those that no better detection has.

    Args:
        detection, box: int64 `[P]`: wishes, by detection (the best first), in falling order of liking.
        shared: bool `[G]`: boxes that any number of detections may have.

    Returns:
        int64 `[M]` each: the detections that got a box, rising, and their boxes.
    """
    first = np.flatnonzero(np.diff(detection, prepend=-1))
    after = np.append(first[1:], len(detection))
    wish = first.copy()  # of each detection that has any
    holder = np.full(len(shared), len(first))  # nobody
    asking = np.arange(len(first))
    while len(asking):
        asking = asking[~shared[box[wish[asking]]]]
        wanted = box[wish[asking]]
        held = holder[wanted]
        # written from the last to the first, so that the best of those who ask stays
        holder[wanted[::-1]] = asking[::-1]
        holder[wanted] = np.minimum(holder[wanted], held)
        now = holder[wanted]
        away = np.concatenate([asking[now != asking], np.unique(held[(held < len(first)) & (held != now)])])
        wish[away] += 1
        asking = np.sort(away[wish[away] < after[away]])
    got = np.flatnonzero(wish < after)
    return detection[wish[got]], box[wish[got]]

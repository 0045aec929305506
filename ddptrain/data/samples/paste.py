"""Copy-paste of small objects: some of an image's own ones again, at free places of it (arXiv 1902.07296)."""

from __future__ import annotations

import numpy as np

from ddptrain.data.augment.geometry import covered
from ddptrain.data.samples.compose import Source
from ddptrain.data.tables.box_masks import covered_pixels
from ddptrain.structures import COCO_AREAS

TRIES = 20
"""Places that are drawn for an object; where none is free, it is not pasted."""
OVERLAP = 0.1
"""An object of which other boxes and ignore regions cover more than this is not pasted: they would come with it."""


def paste_small(source: Source, most: int, size: int, generator: np.random.Generator) -> Source:
    """An image with copies of some of its small objects, those below 32² pixels on the letterboxed square.

    A copy is the box with the pixels of the object in it, depth included: those of its mask where the dataset has masks, else
    all. It lies within the image, and on no box and no ignore region. Where
    the image was halved while it was read, it is moved by whole pixels of that size.

    Args:
        most: the number of objects is drawn from 1 to this, and each among all that are small.
        size: side of the square in pixels.

    Returns:
        The source itself where nothing can be pasted; its arrays are left as they are.
    """
    scale = size / max(source.size)
    small = np.flatnonzero((source.boxes[:, 2:] - source.boxes[:, :2]).prod(1) * scale**2 < COCO_AREAS[0])
    taken = np.concatenate([source.boxes, source.ignore_boxes]).astype(np.float64)
    step = 2**source.image.halved
    room = np.array(source.size) // step
    pasted, moves = [], []
    for index in small[generator.integers(0, len(small), generator.integers(1, most + 1))] if len(small) else ():
        box = source.boxes[index].astype(np.float64)
        first, end = np.floor(box[:2] / step).astype(int), np.ceil(box[2:] / step).astype(int)
        span = end - first
        if (end > room).any() or _overlap(box, np.delete(taken, index, 0)) > OVERLAP:
            continue
        mask = None if source.masks is None else covered_pixels(source.masks[index], box, first, span, step)
        if mask is not None and not mask.any():
            continue
        places = generator.integers(0, room - span + 1, (TRIES, 2))
        free = [place for place in places if not _meets(np.concatenate([place, place + span]) * step, taken).any()]
        if free:
            moved = box + np.tile((free[0] - first) * step, 2)
            taken = np.vstack([taken, moved])
            pasted.append(index)
            moves.append((first, free[0], span, moved, mask))
    if not pasted:
        return source
    values = source.image.values.copy()
    depth = None if source.depth is None else source.depth.copy()
    for first, place, span, _, mask in moves:
        _copy(values, first, place, span, mask)
        if depth is not None:
            fine = None if mask is None else mask.repeat(step, 0).repeat(step, 1)
            _copy(depth, first * step, place * step, span * step, fine)
    return source._replace(
        image=source.image._replace(values=values),
        boxes=np.concatenate([source.boxes, np.array([moved for *_, moved, _ in moves], np.float32)]),
        labels=np.concatenate([source.labels, source.labels[pasted]]),
        depth=depth,
        masks=None if source.masks is None else np.concatenate([source.masks, source.masks[pasted]]),
        pasted=len(pasted),
    )


def _copy(values: np.ndarray, first: np.ndarray, place: np.ndarray, span: np.ndarray, mask: np.ndarray | None) -> None:
    (x, y), (left, top), (width, height) = first.tolist(), place.tolist(), span.tolist()
    there = values[top : top + height, left : left + width]
    there[... if mask is None else mask] = values[y : y + height, x : x + width][... if mask is None else mask]


def _overlap(box: np.ndarray, others: np.ndarray) -> float:
    """The largest part of a box that one of others covers."""
    return float(max((covered(box[None], other)[0] for other in others[_meets(box, others)]), default=0.0))


def _meets(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool `[n]`: which boxes have an area in common with one."""
    return np.asarray(((others[:, :2] < box[2:]) & (others[:, 2:] > box[:2])).all(1))

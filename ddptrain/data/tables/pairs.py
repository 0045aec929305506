"""Pairs of people on a panorama: distance around the seam, geometry features, and which pairs are learned from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ddptrain.config import PairsConfig
from ddptrain.data.tables.base import F64, I32, I64, Mask
from ddptrain.data.tables.people import PeopleTable
from ddptrain.seeding import rng

FEATURES = (
    "distance", "vertical distance", "feet", "widths", "heights", "areas", "overlap", "vertical overlap", "centres", "height",
)  # fmt: skip
"""What `geometry` says of a pair, in its order."""


def seam_distance(a: npt.ArrayLike, b: npt.ArrayLike, width: npt.ArrayLike) -> F64:
    """Horizontal distance of two places on a circle of columns: min(|a - b|, width - |a - b|), for places in 0..2 width."""
    d = np.mod(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)), width)
    return np.minimum(d, width - d)


def is_candidate(a: F64, b: F64, width: npt.ArrayLike, multiplier: float) -> Mask:
    """bool `[n]`: the centres of two boxes `[n, 4]` are at most `multiplier` mean widths of the two apart; symmetric."""
    mean_width = ((a[:, 2] - a[:, 0]) + (b[:, 2] - b[:, 0])) / 2
    return seam_distance((a[:, 0] + a[:, 2]) / 2, (b[:, 0] + b[:, 2]) / 2, width) <= multiplier * mean_width


def geometry(a: F64, b: F64, size: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """How two people are positioned relative to each other: float32 `[n, 10]`, the same for (a, b) and (b, a), for a panorama
    that is turned and for its mirror image.

    With widths w, heights h, areas A of the boxes, bars for means of the two, and the distance around the seam dx:
    dx / w̄; |Δ centre y| / h̄; |Δ bottom| / h̄; |ln w ratio|; |ln h ratio|; |ln A ratio|; IoU; overlap in y / smaller h;
    distance of the centres / sqrt(A₁ + A₂); h̄ / height of the panorama.

    Args:
        a, b: boxes `[n, 4]` in pixels, see `PeopleTable`.
        size: width and height of each panorama, `[n, 2]` or `[2]`.
    """
    width, height = np.asarray(size, np.float64).T
    (wa, ha), (wb, hb) = ((box[:, 2:] - box[:, :2]).T for box in (a, b))
    dx = seam_distance((a[:, 0] + a[:, 2]) / 2, (b[:, 0] + b[:, 2]) / 2, width)
    dy = np.abs((a[:, 1] + a[:, 3]) / 2 - (b[:, 1] + b[:, 3]) / 2)
    h = (ha + hb) / 2
    # overlap of two stretches whose centres are dx apart
    over_x = np.clip(np.minimum((wa + wb) / 2 - dx, np.minimum(wa, wb)), 0, None)
    over_y = np.clip(np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]), 0, None)
    both, areas = over_x * over_y, wa * ha + wb * hb
    features = (
        dx / ((wa + wb) / 2),
        dy / h,
        np.abs(a[:, 3] - b[:, 3]) / h,
        np.abs(np.log(wa / wb)),
        np.abs(np.log(ha / hb)),
        np.abs(np.log(wa * ha / (wb * hb))),
        both / (areas - both),
        over_y / np.minimum(ha, hb),
        np.hypot(dx, dy) / np.sqrt(areas),
        h / height,
    )
    return np.stack(features, 1).astype(np.float32)


def turn_to(a: F64, b: F64, width: float) -> float:
    """Columns from the centre of box `a` `[4]` to that of `b`, the short way around the seam: above 0 where b is on the
    right, in -width / 2 .. width / 2."""
    d = ((b[0] + b[2]) - (a[0] + a[2])) / 2
    return float(d - np.rint(d / width) * width)


def union(a: F64, b: F64, width: float) -> F64:
    """The box `[4]` around two boxes `[4]`, the short way around the seam; symmetric. It begins in 0..width and is at most
    `width` wide."""
    # b moves by whole panoramas to where its centre is nearest
    turn = turn_to(a, b, width) - ((b[0] + b[2]) - (a[0] + a[2])) / 2
    x1, x2 = min(a[0], b[0] + turn), max(a[2], b[2] + turn)
    start = np.mod(x1, width)
    return np.array([start, min(a[1], b[1]), start + min(x2 - x1, width), max(a[3], b[3])], np.float64)


def cut(image: np.ndarray, box: npt.ArrayLike) -> np.ndarray:
    """The part of a panorama in a box, uint8 `[h, w, C]`, on around the seam; the box grows to whole pixels."""
    x1, y1, x2, y2 = (float(v) for v in np.asarray(box))
    height, width = image.shape[:2]
    top, bottom = max(0, int(np.floor(y1))), min(height, int(np.ceil(y2)))
    left, right = int(np.floor(x1)), max(int(np.ceil(x2)), int(np.floor(x1)) + 1)
    rows = image[top : max(bottom, top + 1)]
    if left >= 0 and right <= width:
        return rows[:, left:right]
    return rows.take(np.arange(left, min(right, left + width)) % width, axis=1)


@dataclass(frozen=True, eq=False)
class PairTable:
    """The pairs of one dataset that are looked at, in the order of frames.

    Attributes:
        frame: int32 `[n]`.
        people: int32 `[n, 2]`: rows of the table, the lower first.
        interacting: bool `[n]`.
        classes: bool `[n, C]`: how they interact, in classes of the run; several may be true, or none.
    """

    frame: I32
    people: I32
    interacting: Mask
    classes: Mask

    def __len__(self) -> int:
        return len(self.frame)

    def samples_by_class(self) -> I64:
        """int64 `[C]`: how many pairs interact in each way."""
        return self.classes.sum(0, dtype=np.int64)

    def keep(self, which: Mask) -> PairTable:
        """Those where `which`, bool `[n]`."""
        return PairTable(self.frame[which], self.people[which], self.interacting[which], self.classes[which])


class Removed(NamedTuple):
    """What one rule took away: its words, and how many pairs of each kind."""

    rule: str
    interacting: int
    others: int

    def __str__(self) -> str:
        return f"{self.interacting} + {self.others} {self.rule}"


def find_pairs(table: PeopleTable, config: PairsConfig, stage: int, seed: int | None) -> tuple[PairTable, list[Removed]]:
    """The pairs of a dataset that are looked at, and what each rule removed.

    A pair that a rule removes is not seen at all: it never counts as one that does not interact.

    Args:
        table: with labels of the run.
        stage: 1, all; 2, only interacting pairs of a known class.
        seed: of the drawing for training; None for validation, where every candidate is looked at.
    """
    pairs, unknown = _all_pairs(table, config.max_difficulty)
    if config.use_group_sampling:
        pairs, unknown = _with_groups(pairs, unknown, len(table.boxes))
    a, b = (table.boxes[pairs.people[:, k]].astype(np.float64) for k in (0, 1))
    near = is_candidate(a, b, table.sizes[pairs.frame, 0].astype(np.float64), config.distance_multiplier)
    left_out = {
        "with people that are not evaluated": table.no_eval[pairs.people].any(1),
        f"farther apart than {config.distance_multiplier:g} mean widths": ~near,
        "whose labels are ignored or too difficult": unknown,
    }
    if stage == 2:
        left_out["that do not interact (stage 2)"] = ~pairs.interacting
        left_out["of no class"] = ~pairs.classes.any(1)
    removed = []
    out = np.zeros(len(pairs), bool)
    for rule, which in left_out.items():
        removed.append(_removed(rule, pairs, which & ~out))
        out |= which
    pairs = pairs.keep(~out)
    if seed is not None:
        for rule, chosen in _drawn(table, pairs, config, seed):
            removed.append(_removed(rule, pairs, ~chosen))
            pairs = pairs.keep(chosen)
    return pairs, [r for r in removed if r.interacting or r.others]


def _removed(rule: str, pairs: PairTable, which: Mask) -> Removed:
    return Removed(rule, int((which & pairs.interacting).sum()), int((which & ~pairs.interacting).sum()))


def _all_pairs(table: PeopleTable, max_difficulty: int | None) -> tuple[PairTable, Mask]:
    """All pairs of people in labelled frames, and which of them have labels but none that is known."""
    frames, firsts, seconds = [], [], []
    for frame in np.flatnonzero(table.labelled).tolist():
        first, last = table.offsets[frame : frame + 2].tolist()
        i, j = np.triu_indices(last - first, 1)
        frames.append(np.full(len(i), frame, np.int32))
        firsts.append(i + first)
        seconds.append(j + first)
    empty = [np.zeros(0, np.int64)]
    people = np.stack([np.concatenate(firsts or empty), np.concatenate(seconds or empty)], 1).astype(np.int32)
    frame_of = np.concatenate(frames or empty).astype(np.int32)

    has_labels = np.diff(table.pair_offsets)
    owner = np.repeat(np.arange(len(table.pairs)), has_labels)
    easy = np.ones(len(owner), bool) if max_difficulty is None else table.difficulty <= max_difficulty
    truth = np.zeros((len(table.pairs), len(table.names)), bool)
    known = (table.labels >= 0) & easy
    truth[owner[known], table.labels[known]] = True
    unknown = (has_labels > 0) & ~truth.any(1)

    named, all_pairs = (rows.astype(np.int64) @ (max(int(table.offsets[-1]), 1), 1) for rows in (table.pairs, people))
    place = np.searchsorted(named, all_pairs)
    interacting = np.append(named, -1)[place] == all_pairs
    at = place[interacting]
    out = PairTable(frame_of, people, interacting, np.zeros((len(people), len(table.names)), bool))
    out.classes[interacting] = truth[at]
    hidden = np.zeros(len(people), bool)
    hidden[interacting] = unknown[at]
    return out, hidden


def _drawn(table: PeopleTable, pairs: PairTable, config: PairsConfig, seed: int) -> Iterator[tuple[str, Mask]]:
    """(rule, bool of the pairs that stay) of each rule that draws; each is applied to what the ones before left."""
    # every draw is made whatever the config, so that one option does not change the draws of another
    lots = _lots(table, pairs, seed)
    if config.use_group_sampling:
        group = _groups(pairs.people[pairs.interacting], len(table.boxes))
        people = np.unique(pairs.people[pairs.interacting])
        members = np.bincount(group[people], minlength=len(group))
        quota = np.maximum(np.floor(config.max_group_samples_ratio * members + 0.5), 1)
        own = group[pairs.people[:, 0]]
        chosen = ~pairs.interacting | (_rank(own, lots, pairs.interacting) < quota[own])
        yield f"beyond {config.max_group_samples_ratio:g} × people of their group", chosen
        pairs, lots = pairs.keep(chosen), lots[chosen]
    if config.max_negatives_per_frame is not None:
        rank = _rank(pairs.frame, lots, ~pairs.interacting)
        chosen = pairs.interacting | (rank < config.max_negatives_per_frame)
        yield f"beyond {config.max_negatives_per_frame} negatives of their frame", chosen
        pairs, lots = pairs.keep(chosen), lots[chosen]
    if config.balance_ratio is not None:
        most = round(config.balance_ratio * int(pairs.interacting.sum()))
        chosen = pairs.interacting | (_rank(np.zeros(len(pairs), np.int64), lots, ~pairs.interacting) < most)
        yield f"beyond {config.balance_ratio:g} negatives for each interacting pair", chosen


def _lots(table: PeopleTable, pairs: PairTable, seed: int) -> F64:
    """A number in 0..1 for each pair: a function of the seed, the names of sequence and frame, and the place among the
    frame's candidates in the order of their tracks."""
    lots = np.empty(len(pairs))
    starts = np.flatnonzero(np.diff(pairs.frame, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(pairs)]):
        frame = int(pairs.frame[start])
        name = "/".join(Path(table.path(frame)).parts[-2:]).encode("utf-8", "surrogateescape")
        position = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
        tracks = np.sort(table.tracks[pairs.people[start:stop]], axis=1)
        order = np.lexsort((tracks[:, 1], tracks[:, 0]))
        lots[start + order] = rng(seed, position, "pairs").random(stop - start)
    return lots


def _with_groups(pairs: PairTable, unknown: Mask, people: int) -> tuple[PairTable, Mask]:
    """Within a group everybody interacts with everybody, also where the file names only a chain: of no class where it says
    nothing of the two, and unknown where only an unknown interaction connects them."""
    first, second = pairs.people.T
    group = _groups(pairs.people[pairs.interacting & ~unknown], people)
    joined = group[first] == group[second]
    wider = _groups(pairs.people[pairs.interacting], people)
    out = PairTable(pairs.frame, pairs.people, wider[first] == wider[second], pairs.classes)
    return out, unknown | (out.interacting & ~joined)


def _groups(pairs: I32, people: int) -> I64:
    """int64 `[people]`: the connected component of each person under pairs `[n, 2]`, named by its lowest member."""
    a, b = pairs.T
    group = np.arange(people)
    while True:
        lowest = np.minimum(group[a], group[b])
        before = group.copy()
        np.minimum.at(group, a, lowest)
        np.minimum.at(group, b, lowest)
        if np.array_equal(group, before):
            return group


def _rank(group: npt.NDArray[np.integer], lots: F64, which: Mask) -> I64:
    """int64 `[n]`: the place of each of `which` among those of its group, by lot; the others come after them."""
    order = np.lexsort((lots, ~which, group))
    ordered = group[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return rank

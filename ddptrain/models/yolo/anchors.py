"""Anchors that fit the boxes of a dataset: best possible recall, k-means and a genetic refinement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddptrain.seeding import rng

F64 = NDArray[np.float64]
ENOUGH = 0.98
"""Best possible recall from which on anchors are good enough."""
_SIDES = (1.5, 3.0, 6.0)  # of the square anchors of a level, in strides
_BOXES = 10_000  # that k-means and the refinement look at
_ROUNDS, _GENERATIONS = 30, 1000


Anchors = Sequence[Sequence[Sequence[float]]]
"""Of each level, finest first, the width and height of each anchor in pixels."""


class Fitted(NamedTuple):
    """The outcome of a fit.

    Attributes:
        anchors: `[levels, anchors, 2]`: width and height in pixels.
        line: for the log.
    """

    anchors: Anchors
    line: str


def default_anchors(strides: tuple[int, ...]) -> list[list[list[float]]]:
    """`[levels, 3, 2]`: squares of 1.5, 3 and 6 strides."""
    return [[[side * s, side * s] for side in _SIDES] for s in strides]


def best_possible_recall(sizes: F64, anchors: F64, limit: float) -> float:
    """Fraction of the boxes `[n, 2]` that some anchor `[k, 2]` matches: neither side differs by `limit` times or more."""
    return float((_fit(sizes, anchors) > 1 / limit).mean())


def recall_line(sizes: F64, anchors: Anchors, limit: float) -> str:
    """For the log: the best possible recall of the config's anchors."""
    recall = best_possible_recall(sizes, np.array(anchors, np.float64).reshape(-1, 2), limit)
    line = f"anchors: a best possible recall of {recall:.3f} on {len(sizes)} boxes"
    return line if recall >= ENOUGH else f"warning: {line}; model.anchors=null fits them to the boxes"


def fit_anchors(sizes: F64, anchors: Anchors, limit: float, seed: int) -> Fitted:
    """Replace anchors whose best possible recall is below 0.98 by those that k-means finds in the boxes and a genetic search
    improves, if these are better.

    Args:
        sizes: `[n, 2]`: width and height of the training boxes in pixels of the network's input, n >= 1.
        anchors: `[levels, anchors, 2]`.
        limit: see `best_possible_recall`.
        seed: of the run: the outcome is a function of it and of the boxes.
    """
    old = np.array(anchors, np.float64)
    before = best_possible_recall(sizes, old.reshape(-1, 2), limit)
    line = f"anchors: a best possible recall of {before:.3f} on {len(sizes)} boxes"
    if before >= ENOUGH:
        return Fitted(anchors, line)
    draws = rng(seed, 0, "anchors")
    some = sizes if len(sizes) <= _BOXES else sizes[np.sort(draws.choice(len(sizes), _BOXES, replace=False))]
    found = _refine(some, _k_means(some, len(old) * old.shape[1], draws), limit, draws)
    found = found[np.argsort(found.prod(1), kind="stable")].round(1)
    after = best_possible_recall(sizes, found, limit)
    if after <= before:
        return Fitted(anchors, f"{line}; other anchors reach no more ({after:.3f})")
    new = found.reshape(old.shape).tolist()
    shown = "; ".join(", ".join(f"{w:g} x {h:g}" for w, h in level) for level in new)
    return Fitted(new, f"{line}, which k-means and a genetic search raise to {after:.3f}: {shown}")


def _fit(sizes: F64, anchors: F64) -> F64:
    """`[n]`: of the best anchor of each box the ratio, at most 1, of the side that differs most."""
    ratio = sizes[:, None] / anchors
    return np.minimum(ratio, 1 / ratio).min(2).max(1)


def _fitness(sizes: F64, anchors: F64, limit: float) -> float:
    fit = _fit(sizes, anchors)
    return float((fit * (fit > 1 / limit)).mean())


def _k_means(sizes: F64, count: int, draws: np.random.Generator) -> F64:
    """`[count, 2]`: means of the boxes, whitened by the deviation of each side; starts from quantiles of the area."""
    scale = np.maximum(sizes.std(0), 1e-9)
    ordered = sizes[np.argsort(sizes.prod(1), kind="stable")]
    centres = ordered[((np.arange(count) + 0.5) / count * len(ordered)).astype(np.int64)] / scale
    centres = centres * draws.uniform(0.95, 1.05, centres.shape)  # so that equal boxes do not give equal centres
    points = sizes / scale
    for _ in range(_ROUNDS):
        nearest = ((points[:, None] - centres) ** 2).sum(2).argmin(1)
        amount = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, points[:, i], count) for i in (0, 1)], 1)
        centres = np.where(amount[:, None] > 0, sums / np.maximum(amount, 1)[:, None], centres)
    return np.maximum(centres * scale, 2.0)


def _refine(sizes: F64, anchors: F64, limit: float, draws: np.random.Generator) -> F64:
    """Change sides by random factors, and keep what fits the boxes better."""
    best = _fitness(sizes, anchors, limit)
    for _ in range(_GENERATIONS):
        changed = draws.random(anchors.shape) < 0.9
        factors = (1 + changed * draws.random() * draws.normal(0, 0.1, anchors.shape)).clip(0.3, 3.0)
        other = np.maximum(anchors * factors, 2.0)
        value = _fitness(sizes, other, limit)
        if value > best:
            best, anchors = value, other
    return anchors

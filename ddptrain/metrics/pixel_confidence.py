"""What a threshold on the probability of a class does to pixels, which are too many to keep each: they are counted in steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddptrain.metrics.curves import BINS, Curve, bins_of
from ddptrain.metrics.matches import F64, I64
from ddptrain.structures import VOID

STEPS = 50
"""Steps of equal width in which probabilities are counted; a probability of exactly 1 is counted in a step of its own."""
THRESHOLDS = np.linspace(0, 1, STEPS + 1)
"""Where the steps begin, and from which on `counts_of_pixels` counts: exactly, as no probability between them is told apart."""


class Steps(NamedTuple):
    """The probabilities of one image's pixels, small enough to travel: about 10 kB with 150 classes.

    Attributes:
        cells: uint16 `[k]`: the cells that are not 0 of the histogram of `Confidences`.
        pixels: uint32 `[k]`: what they hold.
        answers: float64 `[3, BINS]`, see there.
    """

    cells: NDArray[np.uint16]
    pixels: NDArray[np.uint32]
    answers: F64


class Confidences(NamedTuple):
    """The probabilities of many pixels.

    Attributes:
        histogram: int64 `[C, 2, STEPS + 1]`: pixels by class, by whether the class is theirs, and by the step of the
            probability that they have of it; only those of datasets that label the class.
        answers: float64 `[3, BINS]`: see `curves.bins_of`, of the probability of the class that is answered.
    """

    histogram: I64
    answers: F64


def count_steps(log_p: Tensor, answer: Tensor, truth: Tensor, annotated: Tensor) -> Steps:
    """The probabilities of one image's pixels; those that are void count nowhere.

    Most probabilities are in the first step. They are counted as what the others leave, so that a class costs little more than
    a look at its largest probability where it is far from all pixels.

    Args:
        log_p: float32 `[C, H, W]`: logarithms of the probabilities, over the classes that the dataset labels.
        answer: int64 `[H, W]`: the class that is answered.
        truth: uint8 `[H, W]`, class of each pixel, `VOID` where it does not count.
        annotated: bool `[C]`: the classes that the dataset labels.
    """
    classes, floor = len(log_p), math.log(1 / STEPS)
    log_p, answer, truth = log_p.reshape(classes, -1), answer.reshape(-1), truth.reshape(-1)
    valid = truth != VOID
    real = torch.bincount(truth[valid], minlength=classes)
    found = real.new_zeros(classes, 2, STEPS + 1)
    found[..., 0] = torch.stack([valid.sum() - real, real], 1)
    # negated, so that a class with a NaN is looked at
    for k in (annotated & ~(log_p.amax(1) < floor)).nonzero()[:, 0].tolist():
        above = ((log_p[k] >= floor) & valid).nonzero()[:, 0]
        step = (log_p[k][above].exp() * STEPS).int().clamp(max=STEPS)
        own = torch.bincount((truth[above] == k) * (STEPS + 1) + step, minlength=2 * (STEPS + 1)).view(2, -1)
        found[k] += own
        found[k, :, 0] -= own.sum(1)
    histogram = (found * annotated[:, None, None]).cpu().numpy().ravel()
    cells = np.flatnonzero(histogram)
    # a probability that is not a number is no confidence at all
    score = log_p.gather(0, answer[None])[0].exp().nan_to_num(0)[valid]
    answers = bins_of(score.cpu().numpy(), (answer == truth)[valid].cpu().numpy())
    return Steps(cells.astype(np.uint16), histogram[cells].astype(np.uint32), answers)


def add_steps(images: Iterable[Steps], classes: int) -> Confidences:
    """Those of all images together."""
    histogram, answers = np.zeros(classes * 2 * (STEPS + 1), np.int64), np.zeros((3, BINS))
    for of_image in images:
        histogram[of_image.cells] += of_image.pixels
        answers += of_image.answers
    return Confidences(histogram.reshape(classes, 2, STEPS + 1), answers)


def counts_of_pixels(histogram: I64) -> tuple[I64, I64, I64, I64]:
    """Hits, false alarms, misses and true negatives of a class whose pixels are those that have at least a probability of it,
    each int64 `[STEPS + 1]` at `THRESHOLDS`.

    Args:
        histogram: int64 `[2, STEPS + 1]`, of the class, see `Confidences`.
    """
    alarms, hits = histogram[:, ::-1].cumsum(1)[:, ::-1]
    return hits, alarms, hits[0] - hits, alarms[0] - alarms


def curve_of_pixels(histogram: I64) -> Curve:
    """The same as a curve, at the thresholds that some pixel reaches."""
    hits, alarms, _, _ = (column[::-1] for column in counts_of_pixels(histogram))
    some = hits + alarms > 0
    hits, alarms, truths = hits[some], alarms[some], int(histogram[1].sum())
    recall = hits / truths if truths else np.full(len(hits), np.nan)
    return Curve(truths, THRESHOLDS[::-1][some], hits / (hits + alarms), recall)

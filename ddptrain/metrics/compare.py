"""Whether one way of training is better than another: paired bootstrap over images, and the spread of the seeds.

Both sides are evaluated on the same drawn images, so that what makes an image hard for both cancels out. Of several runs that
differ in their seeds the means are compared; the error of a mean over few seeds is drawn from Student's t distribution with
their pooled spread. The two errors are added as if they were independent, which makes the interval slightly too wide: part of
the spread of the seeds is in that of the images, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddptrain.metrics.matches import F64
from ddptrain.metrics.resample import FEWEST, interval
from ddptrain.system.printable import counted

Z = 1.96
"""Standard deviations within which 95 % of a normal distribution lie."""


@dataclass(frozen=True)
class Comparison:
    """The difference of a metric, second side minus first.

    Attributes:
        first, second: the metric of each run of both sides.
        images: number of images.
        low, high: 95 % interval of the difference of the means.
        image_error, seed_error: its standard errors; the second is 0 with one run on each side.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    images: int
    low: float
    high: float
    image_error: float
    seed_error: float

    @property
    def difference(self) -> float:
        """Mean of the second side minus mean of the first."""
        return float(np.mean(self.second) - np.mean(self.first))

    @property
    def verdict(self) -> str:
        """`better` or `worse`: the second side, where the interval does not hold 0; else, and of few images, `cannot tell`."""
        if self.images < FEWEST:
            return "cannot tell"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "cannot tell"

    def images_needed(self) -> int | None:
        """How many images like these would tell a difference of this size, with as many seeds; None: no number."""
        left = self.difference**2 - (Z * self.seed_error) ** 2
        return math.ceil(self.images * (Z * self.image_error) ** 2 / left) if left > 0 else None

    def seeds_needed(self) -> int | None:
        """How many seeds on each side would tell it, on these images; None: no number, or the spread of seeds is not known."""
        left = self.difference**2 - (Z * self.image_error) ** 2
        if left <= 0 or not self.seed_error:
            return None
        spread = self.seed_error**2 / (1 / len(self.first) + 1 / len(self.second))
        return max(2, math.ceil(2 * Z**2 * spread / left))


def compare(
    first: Sequence[float],
    second: Sequence[float],
    first_draws: Sequence[F64],
    second_draws: Sequence[F64],
    images: int,
    seed: int,
) -> Comparison:
    """Compare the runs of two sides.

    Args:
        first, second: the metric of each run.
        first_draws, second_draws: float64 `[draws]` of each run, all over the same draws of the images.
        seed: of the draws of Student's t.
    """
    difference = np.mean(second_draws, 0) - np.mean(first_draws, 0)
    known = difference[~np.isnan(difference)]
    image_error = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    freedom = len(first) + len(second) - 2
    seed_error = 0.0
    if freedom:
        squares = sum(((np.array(side) - np.mean(side)) ** 2).sum() for side in (first, second))
        seed_error = math.sqrt(float(squares) / freedom * (1 / len(first) + 1 / len(second)))
        known = known + seed_error * np.random.default_rng((seed, freedom)).standard_t(freedom, len(known))
    low, high = interval(known)
    return Comparison(tuple(first), tuple(second), images, low, high, image_error, seed_error)


def in_words(c: Comparison, metric: str, first: str, second: str) -> list[str]:
    """The verdict, and what it rests on, as sentences."""
    span = f"{c.difference:+.4f}, 95 % interval {c.low:+.4f} to {c.high:+.4f}"
    if c.images < FEWEST:
        few = f"cannot tell: {metric} of {second} minus {first} is {c.difference:+.4f}"
        return [f"{few}, but {counted(c.images, 'image')} are too few to generalize from; evaluate on {FEWEST} or more"]
    if c.verdict == "cannot tell":
        lines = [f"cannot tell: {metric} of {second} minus {first} is {span}, which contains 0", _enough(c)]
    else:
        lines = [f"{second} is {c.verdict} than {first}: {metric} {span}"]
    if len(c.first) + len(c.second) == 2:
        lines.append("one run on each side: this compares these two models; another seed may give the opposite")
    return lines


def _enough(c: Comparison) -> str:
    """How much more data, or how many more seeds, would tell."""
    if c.difference == 0:
        return "the two results are equal"
    images, seeds = c.images_needed(), c.seeds_needed()
    ways = [f"{images:,} images like these {c.images:,}"] if images is not None and images < 1000 * c.images else []
    ways += [f"{seeds} seeds on each side"] if seeds is not None and seeds < 1000 else []
    if not ways:
        return "no practical number of images or seeds would show a difference this small"
    return f"if the difference stays the same, about {' or '.join(ways)} would be enough to tell"

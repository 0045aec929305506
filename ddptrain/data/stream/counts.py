"""How many samples of each dataset the first n draws hold: exact in integers, without walking the stream.

With weights `a_d` (integers that sum to `Q`) the count of dataset d after n draws must differ from `a_d * n / Q` by
less than 1 at every multiple of the block, and never fall. Differences of rounded prefix sums do that for every dataset
that gets at least one draw a block, and for the first and the last in the chain whatever they get. Three or more
datasets with less than one draw a block go through a timetable (`rare.py`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddptrain.data.stream.rare import Timetable

I64 = NDArray[np.int64]


class BlockCounts:
    """Exact counts of each dataset at block boundaries.

    Args:
        weights: integers >= 0, at least one above 0; dataset d gets `weights[d] / sum(weights)` of the draws.
        block: draws per block, >= 1.
    """

    def __init__(self, weights: Sequence[int], block: int):
        self.block = block
        self.datasets = len(weights)
        self.total = sum(weights)
        drawn = [d for d, a in enumerate(weights) if a]
        rare = [d for d in drawn if weights[d] * block < self.total]
        common = [d for d in drawn if weights[d] * block >= self.total]
        self._timetable = None
        if len(rare) > 2:
            self._timetable = Timetable([weights[d] for d in rare], self.total, block)
            self._chain = [*rare, *common]
            steps = [weights[d] for d in common]
            base = sum(weights[d] for d in rare)
        else:
            # a rare dataset never loses a draw where one of its two neighbours in the chain is the fixed end
            self._chain = rare[:1] + common + rare[1:]
            steps = [weights[d] for d in self._chain]
            base = 0
        self._rare = len(rare) if self._timetable else 0
        self._prefix = [base + sum(steps[:j]) for j in range(1, len(steps))]

    def counts(self, blocks: I64) -> I64:
        """Draws of each dataset in the first `blocks[i]` blocks.

        Args:
            blocks: int64 `[m]`, >= 0.

        Returns:
            int64 `[m, D]`, each row summing to `blocks[i] * block`.
        """
        edges = np.zeros((len(blocks), len(self._chain) + 1), np.int64)
        edges[:, -1] = blocks * self.block
        up = np.zeros(len(blocks), bool)
        if self._timetable is not None:
            part = self._timetable.counts(blocks)
            np.cumsum(part, 1, out=edges[:, 1 : self._rare + 1])
            # the common datasets are rounded to the side to which the sum of the rare ones was
            up = edges[:, self._rare] > scaled_floor(blocks, self._timetable.share * self.block, self.total)
        for j, a in enumerate(self._prefix, self._rare + 1):
            edges[:, j] = scaled_floor(blocks, a * self.block, self.total, up)
        out = np.zeros((len(blocks), self.datasets), np.int64)
        out[:, self._chain] = np.diff(edges)
        return out


def scaled_floor(k: NDArray[Any], a: int, q: int, up: NDArray[np.bool_] | None = None) -> I64:
    """floor(k * a / q), or the ceiling where `up`, exact for integers of any size.

    Args:
        k: int64 `[m]`, >= 0.
    """
    if not len(k):
        return np.zeros(0, np.int64)
    first = int(k.min())
    whole, rest = divmod(a, q)
    start, over = divmod(first * rest, q)
    step = k - first
    fits = (int(step.max()) + 1) * rest + over + q < 2**62
    wide = step if fits else step.astype(object)
    numerator = wide * rest + over
    if up is not None:
        numerator = numerator + up.astype(wide.dtype) * (q - 1)
    return (numerator // q).astype(np.int64) + start + k * whole

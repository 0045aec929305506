"""The timetable of datasets that get less than one draw a block, exact and computable from any position.

Draw j of a dataset with share s may come once `s * n > j` and must have come when `s * n = j + 1`: then its count is
always within 1 of `s * n`. Earliest deadline first meets every deadline whenever that is possible at all (Tijdeman,
"The chairman assignment problem", 1980). It has a memory, so the stream is cut into spans in each of which every one
is drawn, and the state at a cut is a function of the cut alone: the fractions that are due there are rounded so that in
order of deadline, and in order of release too, every partial sum is off by less than 1 (Knuth, "Two-way rounding",
1995). By Hall's theorem a valid timetable then joins any two neighbouring cuts, and earliest deadline first finds it:

Between cuts every stretch of time has room for the draws that must fall into it, as the whole windows in it cannot make
more than its length. At a cut the draws made ahead of time must leave room as well: those still ahead at a later time T
are the last in order of deadline, and number at most the rounded-up sum of their fractions, which is no more than the
sum of all fractions at T, the number that may be ahead then. Backwards in time the same holds in order of release.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
_LEAST = 1 << 14  # draws per span, so that the rounding at the cuts costs little
_LONGEST = 1 << 22  # rare draws per span, some ten seconds of work
_KEEP = 16


class Timetable:
    """Counts of the rare datasets at block boundaries.

    Args:
        weights: integers above 0 of the rare datasets; each gets `weights[d] / total * block < 1` draws a block.
        total: sum of the weights of all datasets; what the rare ones leave goes to the others, here as one dataset.
        block: draws per block.

    Raises:
        ValueError: the shares lie so far apart that a span would be too long to compute.
    """

    def __init__(self, weights: Sequence[int], total: int, block: int):
        self.share = sum(weights)
        self._rare = list(weights)
        self._all = [*weights, total - self.share] if self.share < total else self._rare
        self._total = total
        self._block = block
        self._span = -(-max(-(-total // min(weights)), _LEAST) // block)
        if self._span * block * self.share > _LONGEST * total:
            enough = -(-total // sorted(weights)[2])
            raise ValueError(
                f"block: {block} leaves {len(weights)} datasets with less than one draw a block, the rarest with one "
                f"in {total // min(weights)} draws; use a block of at least {enough}, or raise their shares"
            )
        # after that many blocks everything is as at the start
        self._period = total // math.gcd(total, block)
        self._spans: OrderedDict[int, tuple[list[int], list[I64]]] = OrderedDict()

    def counts(self, blocks: I64) -> I64:
        """Draws of each rare dataset in the first `blocks[i]` blocks: int64 `[m, rare datasets]`."""
        out = np.empty((len(blocks), len(self._rare)), np.int64)
        rounds = np.zeros(len(blocks), np.int64)
        if self._period < 2**62:
            rounds, blocks = np.divmod(blocks, self._period)
        number = blocks // self._span
        for m in np.unique(number).tolist():
            start, done = self._filled(m)
            here = number == m
            for d, (c, times) in enumerate(zip(start, done)):
                out[here, d] = c + np.searchsorted(times, blocks[here], side="right")
        if self._period < 2**62:
            each = [w * self._block * self._period // self._total for w in self._rare]
            out += rounds[:, None] * np.array(each, np.int64)
        return out

    def _filled(self, m: int) -> tuple[list[int], list[I64]]:
        """Span m: counts of the rare datasets at its start, and the block by whose end each further draw is done."""
        if m not in self._spans:
            self._spans[m] = self._fill(m)
            if len(self._spans) > _KEEP:
                self._spans.popitem(last=False)
        return self._spans[m]

    def _at_cut(self, m: int) -> list[int]:
        """Counts of the rare datasets after m spans, from the two-way rounding of what is due by then."""
        n, q = m * self._span * self._block, self._total
        due = [w * n % q for w in self._all]
        open_ = [d for d, f in enumerate(due) if f]
        # compares (q - due) / weight and due / weight without dividing
        scale = [math.prod(self._all[:d] + self._all[d + 1 :]) for d in range(len(self._all))]
        deadline = sorted(open_, key=lambda d: (q - due[d]) * scale[d])
        release = sorted(open_, key=lambda d: due[d] * scale[d])
        up = two_way_round(due, q, deadline, release)
        return [w * n // q + (d in up) for d, w in enumerate(self._rare)]

    def _fill(self, m: int) -> tuple[list[int], list[I64]]:
        """Earliest deadline first from cut m to cut m + 1, one rare draw after the other."""
        start, end = self._at_cut(m), self._at_cut(m + 1)
        first, last = m * self._span + 1, (m + 1) * self._span
        q, pace = self._total, [w * self._block for w in self._rare]
        count, done = list(start), [[] for _ in start]  # type: tuple[list[int], list[list[int]]]
        waiting: list[tuple[int, int]] = []  # (block from which on, dataset)
        ready: list[tuple[int, int]] = []  # (block by which, dataset)
        for d, c in enumerate(count):
            if c < end[d]:
                heappush(waiting, (max(c * q // pace[d] + 1, first), d))
        drawn = sum(start)
        while waiting or ready:
            # the other datasets take all they may: a rare one comes when the rare ones' sum reaches the next integer,
            # or when it is due
            slot = max(-(-(drawn + 1) * q // (self.share * self._block)), first)
            if ready:
                slot = min(slot, ready[0][0])
            if waiting and (waiting[0][0] <= slot or not ready):
                d = heappop(waiting)[1]
                heappush(ready, (min(-(-(count[d] + 1) * q // pace[d]), last), d))
                continue
            d = heappop(ready)[1]
            count[d] += 1
            drawn += 1
            done[d].append(slot)
            if count[d] < end[d]:
                heappush(waiting, (max(count[d] * q // pace[d] + 1, first), d))
        return start, [np.array(times, np.int64) for times in done]


def two_way_round(due: Sequence[int], q: int, one: Sequence[int], two: Sequence[int]) -> set[int]:
    """Round fractions `due[d] / q` to 0 or 1 so that all partial sums, in both orders, are off by less than 1.

    Args:
        due: numerators, 0 < due[d] < q for every d of the orders; over the orders they sum to a multiple of q.
        one, two: the same items in two orders.

    Returns:
        The items that are rounded up.

    Laid end to end in one order the fractions fill unit cells, and one item is chosen from each cell of either order.
    That is a flow cell -> item -> cell of unit capacities; the fractions are such a flow, so an integer one exists.
    """
    ahead: dict[tuple[str, int], dict[tuple[str, int], None]] = {}

    def edge(a: tuple[str, int], b: tuple[str, int]) -> None:
        ahead.setdefault(a, {})[b] = None
        ahead.setdefault(b, {})

    for order, side in ((one, "one"), (two, "two")):
        at = 0
        for d in order:
            for cell in range(at // q, (at + due[d] - 1) // q + 1):
                if side == "one":
                    edge(("source", 0), (side, cell))
                    edge((side, cell), ("in", d))
                else:
                    edge(("out", d), (side, cell))
                    edge((side, cell), ("sink", 0))
            at += due[d]
            edge(("in", d), ("out", d))
    while _augment(ahead):
        pass
    return {d for d in one if ("in", d) in ahead[("out", d)]}


def _augment(ahead: dict[tuple[str, int], dict[tuple[str, int], None]]) -> bool:
    """Push one unit from source to sink along a shortest path by turning its edges round; False where there is none."""
    source, sink = ("source", 0), ("sink", 0)
    parent = {source: source}
    queue = deque([source])
    while queue and sink not in parent:
        a = queue.popleft()
        for b in ahead.get(a, ()):
            if b not in parent:
                parent[b] = a
                queue.append(b)
    if sink not in parent:
        return False
    b = sink
    while b != source:
        a = parent[b]
        del ahead[a][b]
        ahead[b][a] = None
        b = a
    return True

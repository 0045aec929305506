"""A mixture of datasets as one endless stream of draws: which dataset stands at which position, as a formula.

The stream is cut into blocks. A block holds an exact number of draws of each dataset (`counts.py`), in a
pseudo-random order of its own; a dataset's draws are numbered 0, 1, 2, ... along the stream.
"""

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction
from numbers import Integral, Rational
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddptrain.data.stream.counts import BlockCounts
from ddptrain.data.stream.permutation import permute, subkeys
from ddptrain.seeding import stream_key
from ddptrain.structures import PlanRow

I64 = NDArray[np.int64]


class Mixture:
    """Datasets, their shares, and the exact order in which they are drawn.

    Args:
        names: names of the datasets.
        sizes: number of samples of each.
        shares: relative share of the draws of each dataset, regardless of its size (2 and 1 mean 2:1); None for proportional
            to size. A float counts as the shortest decimal that names it, so that 0.7, 0.2, 0.1 are exactly 7:2:1;
            integers and Fractions are taken as they are.
        samples_per_epoch: draws per epoch; default: the sum of the sizes.
        block: draws in which the shares hold exactly; best the global batch.
        seed: of the order inside the blocks.
        shuffle: False lists a block's datasets one after the other.

    Attributes:
        cut: a position at which the draws of each dataset are divided, as they are where an epoch ends: the draws before it
            have the lower numbers, also where it lies inside a block.

    Raises:
        ValueError: a size or share is impossible; the message names the dataset and the value.
    """

    def __init__(
        self,
        names: Sequence[str],
        sizes: Sequence[int],
        shares: Sequence[float | Fraction] | None = None,
        samples_per_epoch: int | None = None,
        *,
        block: int = 256,
        seed: int = 0,
        shuffle: bool = True,
    ):
        self.names = tuple(names)
        self.sizes = _checked_sizes(self.names, sizes)
        self.weights = _integer_weights(self.names, self.sizes, self.sizes if shares is None else shares)
        self.shares = np.array([Fraction(w, sum(self.weights)) for w in self.weights], np.float64)
        draws = sum(self.sizes) if samples_per_epoch is None else samples_per_epoch
        self.samples_per_epoch = whole("samples_per_epoch:", draws, 1)
        self.block = whole("block:", block, 1)
        self.seed = int(seed)
        self.shuffle = bool(shuffle)
        self._counts = BlockCounts(self.weights, self.block)
        # the order inside a block matters only where there is more than one dataset to order
        self._mixed = self.shuffle and sum(w > 0 for w in self.weights) > 1
        self._size = np.maximum(np.array(self.sizes, np.int64), 1)
        self._key = stream_key(self.seed, "sampler/block")
        self.cut = 0

    def assign(self, positions: I64) -> tuple[I64, I64]:
        """Which draw stands at each position.

        Args:
            positions: int64 `[m]`, >= 0, in any order.

        Returns:
            dataset: int64 `[m]`, number of the dataset.
            draw: int64 `[m]`, how many draws of that dataset stand before this one in the stream.
        """
        number, slot = np.divmod(positions, self.block)
        blocks, row = np.unique(number, return_inverse=True)
        before, after = self._counts.counts(blocks), self._counts.counts(blocks + 1)
        dataset, draw = self._place(blocks, row, slot, before, after)
        if self._mixed:
            strict = self._strict(blocks, before, after)
            for some in np.array_split(np.flatnonzero(strict), 1 + np.count_nonzero(strict) * self.block // _GRID):
                where = np.full(len(blocks), -1)
                where[some] = np.arange(len(some))
                here = np.flatnonzero(where[row] >= 0)
                grid = self._by_slot(blocks[some], before[some], after[some])
                draw[here] = grid[where[row[here]], slot[here]]
        return dataset, draw

    def _strict(self, blocks: I64, before: I64, after: I64) -> NDArray[np.bool_]:
        """Blocks in which the draws of a dataset must be numbered in the order of their slots.

        That is where a pass or an epoch ends or the `cut` lies inside the block; elsewhere the numbers may be shuffled within
        it, which saves looking at the whole block.
        """
        pass_ends = (before // self._size != np.maximum(after - 1, before) // self._size).any(1)
        first = blocks * self.block
        is_cut = (first < self.cut) & (self.cut < first + self.block)
        return pass_ends | is_cut | (first // self.samples_per_epoch != (first + self.block - 1) // self.samples_per_epoch)

    def _by_slot(self, blocks: I64, before: I64, after: I64) -> I64:
        """Draw numbers of whole blocks, counted in the order of the slots: int64 `[blocks, block]`."""
        row = np.repeat(np.arange(len(blocks)), self.block)
        slot = np.tile(np.arange(self.block), len(blocks))
        code = row * len(self.sizes) + self._place(blocks, row, slot, before, after)[0]
        order = np.argsort(code, kind="stable")
        draw = np.empty(len(code), np.int64)
        draw[order] = slot + (after - np.cumsum(after - before, 1)).ravel()[code[order]]
        return draw.reshape(len(blocks), self.block)

    def _place(self, blocks: I64, row: I64, slot: I64, before: I64, after: I64) -> tuple[I64, I64]:
        """Dataset and draw number where a block's draws, listed by dataset, are shuffled as they are."""
        if self._mixed:
            slot = permute(slot, self.block, subkeys(self._key, blocks)[row])
        edges = np.cumsum(after - before, 1)
        base = np.arange(len(blocks))[:, None] * self.block
        flat = np.searchsorted((edges + base).ravel(), slot + base[row, 0], side="right")
        draw = slot + (after - edges).ravel()[flat]
        return flat - row * len(self.sizes), draw

    def drawn(self, position: int) -> I64:
        """Draws of each dataset among the first `position` positions: int64 `[D]`, exact at any position."""
        number, slots = divmod(position, self.block)
        out = self._counts.counts(np.array([number], np.int64))[0]
        if slots:
            dataset, _ = self.assign(number * self.block + np.arange(slots))
            out += np.bincount(dataset, minlength=len(out))
        return out

    def plan(self) -> list[PlanRow]:
        """One row per dataset: what an epoch will hold."""
        rows = []
        for name, size, share in zip(self.names, self.sizes, self.shares.tolist()):
            drawn = share * self.samples_per_epoch
            passes = drawn / size if size else 0.0
            rows.append(PlanRow(name, size, share, drawn, passes, 1 / passes if passes else math.inf))
        return rows

    def warnings(self) -> list[str]:
        """What in the plan looks unintended, in words, one line each."""
        out = []
        for row in self.plan():
            if not row.share:
                out.append(f"{row.name}: its share is 0, it is never drawn")
            elif row.passes_per_epoch > 10:
                out.append(
                    f"{row.name}: each of its {row.size} samples is seen {row.passes_per_epoch:.3g} times an epoch; "
                    "lower its share unless it is meant to be memorized"
                )
            elif row.passes_per_epoch < 0.1:
                out.append(
                    f"{row.name}: an epoch holds {row.passes_per_epoch:.2%} of its {row.size} samples, a pass takes "
                    f"{row.epochs_per_pass:.3g} epochs; raise its share or the samples per epoch if that is too rare"
                )
        return out

    def parts(self) -> dict[str, str]:
        """Everything the stream depends on, by name, as short text; lists as a hash."""
        return {
            "sizes": digest(self.sizes),
            "shares": digest(self.weights),
            "samples_per_epoch": str(self.samples_per_epoch),
            "block": str(self.block),
            "seed": str(self.seed),
            "shuffle": str(self.shuffle),
        }

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ where any two mixtures' streams differ."""
        return digest(sorted(self.parts().items()))


_GRID = 1 << 18  # slots looked at in one go


def digest(value: Any) -> str:
    """16 hexadecimal digits of a plain value."""
    return hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()


def whole(what: str, value: Any, least: int) -> int:
    """`value` as an int; ValueError where it is not an integer or below `least`."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{what} {value} must be an integer ≥ {least}")
    return int(value)


def _checked_sizes(names: Sequence[str], sizes: Sequence[int]) -> tuple[int, ...]:
    if not len(sizes):
        raise ValueError("sizes: no dataset; give at least one")
    if len(names) != len(sizes):
        raise ValueError(f"names: {len(names)} names for {len(sizes)} datasets")
    checked = tuple(whole(f"{name}: size", size, 0) for name, size in zip(names, sizes))
    if not any(checked):
        raise ValueError(f"sizes: all {len(sizes)} datasets are empty")
    return checked


def _integer_weights(names: Sequence[str], sizes: Sequence[int], shares: Sequence[float | Fraction]) -> tuple[int, ...]:
    """The shares as integers in their exact ratio, without a common divisor."""
    if len(shares) != len(sizes):
        raise ValueError(f"shares: {len(shares)} shares for {len(sizes)} datasets; give one per dataset")
    exact = []
    for name, size, share in zip(names, sizes, shares):
        if not math.isfinite(share) or share < 0:
            raise ValueError(f"{name}: share {share} is not a finite number >= 0")
        if share > 0 and size == 0:
            raise ValueError(f"{name}: share {share} of an empty dataset; give it a share of 0, or samples")
        if isinstance(share, Rational):
            exact.append(Fraction(int(share.numerator), int(share.denominator)))
        else:
            exact.append(Fraction(repr(float(share))))
    if not any(exact):
        raise ValueError(f"shares: all are 0 ({', '.join(names)}); at least one must be above")
    common = math.lcm(*(x.denominator for x in exact))
    integers = [int(x * common) for x in exact]
    divisor = math.gcd(*integers)
    return tuple(w // divisor for w in integers)

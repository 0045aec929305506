"""A weighted, distributed sampler that is a formula of (seed, position): nothing is stored, so resume is one integer.

All ranks share one endless stream of positions 0, 1, 2, ...; rank r of W takes positions r, r + W, r + 2 W, ... Which
dataset stands at a position is settled by `Mixture`; which of its samples, by a fresh pseudo-random permutation for
every pass over the dataset, or by systematic resampling in every epoch where samples have weights of their own.
"""

import math
from collections.abc import Iterator, Sequence, Sized
from fractions import Fraction
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Sampler

from ddptrain.data.stream.mixture import I64, Mixture, digest, whole
from ddptrain.data.stream.permutation import permute, subkeys
from ddptrain.data.stream.weights import SampleWeights
from ddptrain.distributed import rank_and_size
from ddptrain.seeding import stream_key
from ddptrain.structures import PlanRow

_FIRST_CHUNK = 256
_CHUNK = 1 << 15


class DistributedWeightedSampler(Sampler[int]):
    """Indices into a concatenation of datasets, drawn in exact shares, for one rank of many.

    Args:
        sizes: a ConcatDataset, or the length of each dataset.
        shares: relative share of the draws of each dataset, regardless of its size (2 and 1 mean 2:1, see `Mixture`). None:
            proportional to the sum of `sample_weights` where given, else to size.
        sample_weights: float weight of each sample, >= 0: one array over the concatenation, or one array (or None) per
            dataset. A sample's visits per epoch are within 1 of its dataset's draws times its part of the weights.
        temperature: instead of shares: share proportional to size ** (1 / temperature), > 0; 1 is plain concatenation,
            inf gives every dataset the same.
        samples_per_epoch: draws per epoch over all ranks; default: the sum of the sizes.
        block: draws over all ranks in which the shares hold exactly; give the global batch (default 256).
        num_replicas, rank: of this process; default: those of the process group where there is one, else 1 and 0.
        seed: of all random order, any integer.
        shuffle: False keeps each dataset in its own order.
        names: of the datasets, for messages and the plan.

    Attributes:
        since: position from which on the weights of the samples hold, see `reweigh`.

    Iterating yields the rest of the current epoch, then the next call the next epoch. An epoch e begins on the first
    position >= `e * samples_per_epoch` that is a multiple of `num_replicas`: every rank has the same number of indices,
    nothing is padded and nothing dropped, and what does not divide goes on into the next epoch. Make
    `samples_per_epoch` a multiple of `num_replicas` for epochs of equal length.

    Raises:
        ValueError: an argument is impossible; the message names the dataset and the value.
    """

    def __init__(
        self,
        sizes: ConcatDataset[Any] | Sequence[int],
        shares: Sequence[float | Fraction] | None = None,
        *,
        sample_weights: Any = None,
        temperature: float | None = None,
        samples_per_epoch: int | None = None,
        block: int | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        names: Sequence[str] | None = None,
    ):
        super().__init__()
        lengths = _lengths(sizes)
        names = [f"dataset {d}" for d in range(len(lengths))] if names is None else names
        self._sample_weights = None if sample_weights is None else SampleWeights(names, lengths, sample_weights)
        if temperature is not None:
            if shares is not None:
                raise ValueError(f"temperature: {temperature} and shares are given; give one of them")
            shares = _tempered(lengths, temperature)
        elif shares is None and self._sample_weights is not None:
            shares = self._sample_weights.totals
        self.mixture = Mixture(
            names, lengths, shares, samples_per_epoch, block=256 if block is None else block, seed=seed, shuffle=shuffle
        )
        if self._sample_weights is not None:
            self._sample_weights.check(self.mixture.weights)
        here, size = rank_and_size()
        self.num_replicas = whole("num_replicas:", size if num_replicas is None else num_replicas, 1)
        self.rank = whole("rank:", here if rank is None else rank, 0)
        if self.rank >= self.num_replicas:
            raise ValueError(f"rank: {self.rank} is outside 0..{self.num_replicas - 1}")
        self._offsets = np.concatenate([[0], np.cumsum(self.mixture.sizes)])
        self._pass_keys = [stream_key(seed, f"sampler/pass/{d}") for d in range(len(lengths))]
        self._before: dict[int, I64] = {}
        self._position = self.since = 0
        self._resumed = False

    def keys(self, positions: I64) -> tuple[I64, I64]:
        """What each position of the global stream holds, regardless of this rank and the number of ranks.

        Args:
            positions: int64 `[m]`, 0 <= position < 2**62, in any order.

        Returns:
            dataset: int64 `[m]`, number of the dataset.
            index: int64 `[m]`, number of the sample inside that dataset.
        """
        dataset, draw = self.mixture.assign(positions)
        index = np.empty_like(draw)
        for d in np.unique(dataset).tolist():
            here = np.flatnonzero(dataset == d)
            if self._sample_weights is not None and self._sample_weights.has(d):
                index[here] = self._weighted(d, positions[here], draw[here])
                continue
            size = self.mixture.sizes[d]
            number, place = np.divmod(draw[here], size)
            if self.mixture.shuffle:
                place = permute(place, size, subkeys(self._pass_keys[d], number))
            index[here] = place
        return dataset, index

    def _weighted(self, d: int, positions: I64, draw: I64) -> I64:
        """Samples of dataset d by systematic resampling over the draws that it gets in each epoch, or in the rest of one."""
        assert self._sample_weights is not None
        index = np.empty_like(draw)
        length = self.mixture.samples_per_epoch
        # a part of an epoch with weights of its own: from its start, or from where they hold, to its end
        starts = np.maximum(positions // length * length, np.where(positions >= self.since, self.since, 0))
        for start in np.unique(starts).tolist():
            here, epoch = starts == start, start // length
            first, last = (int(self._drawn(at)[d]) for at in (start, (epoch + 1) * length))
            place = draw[here] - first
            if self.mixture.shuffle:
                key = subkeys(self._pass_keys[d], np.array([epoch]))
                place = permute(place, last - first, key)
            index[here] = self._sample_weights.pick(d, place, last - first, epoch, self._pass_keys[d])
        return index

    def _drawn(self, position: int) -> I64:
        """Draws of each dataset before a position; the last few are kept."""
        if position not in self._before:
            if len(self._before) > 8:
                self._before.clear()
            self._before[position] = self.mixture.drawn(position)
        return self._before[position]

    def reweigh(self, sample_weights: Any, since: int) -> None:
        """Take other weights of the samples from a position on; what stands before it is no longer known.

        Args:
            sample_weights: as at the start.
            since: the position, >= 0; the same on every rank.
        """
        self._sample_weights = SampleWeights(self.mixture.names, self.mixture.sizes, sample_weights)
        self._sample_weights.check(self.mixture.weights)
        self.since = self.mixture.cut = whole("since:", since, 0)

    def __iter__(self) -> Iterator[int]:
        at, step, chunk = self._position, self.num_replicas, _FIRST_CHUNK
        stop = at + step * -(-(self._start(self.epoch + 1) - at) // step)
        self._resumed = False
        while at < stop:
            dataset, index = self.keys(np.arange(at + self.rank, min(at + chunk * step, stop), step))
            for i in (self._offsets[dataset] + index).tolist():
                at += step
                self._position = at
                yield i
            chunk = min(2 * chunk, _CHUNK)

    def __len__(self) -> int:
        """Indices of the current epoch for each rank, whether or not some were drawn already."""
        return (self._start(self.epoch + 1) - self._start(self.epoch)) // self.num_replicas

    def _start(self, epoch: int) -> int:
        """Global position at which an epoch begins: a multiple of the number of ranks."""
        return -(-epoch * self.mixture.samples_per_epoch // self.num_replicas) * self.num_replicas

    @property
    def position(self) -> int:
        """Global position up to which the indices were handed out by all ranks; set it to continue from anywhere.

        A DataLoader with workers fetches ahead of the loop: there, set `position = steps * global_batch` before saving.
        """
        return self._position

    @position.setter
    def position(self, value: int) -> None:
        self._position = whole("position:", value, 0)
        self._resumed = True

    @property
    def epoch(self) -> int:
        """The epoch in which `position` lies."""
        return self._position // self.mixture.samples_per_epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch. Right after `position` was set or loaded inside that epoch, stay there."""
        number = whole("epoch:", epoch, 0)
        if not (self._resumed and self.epoch == number):
            self._position = self._start(number)

    def state_dict(self) -> dict[str, int | str]:
        """Position, seed and fingerprint of what the stream depends on; the same for any rank and number of ranks."""
        return {"position": self._position, **self._parts()}

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Resume from a state.

        Raises:
            ValueError: the state belongs to another stream; the message says what differs.
        """
        for name, value in self._parts().items():
            if state.get(name) != value:
                raise ValueError(
                    f"sampler state: {name} was {state.get(name)} and is {value} now; "
                    "keep it as it was, or start from position 0"
                )
        self.position = int(state["position"])

    def plan(self) -> list[PlanRow]:
        """One row per dataset: size, share, samples and passes per epoch, epochs per pass."""
        return self.mixture.plan()

    @property
    def weighted(self) -> list[bool]:
        """Of each dataset, whether its samples have weights of their own."""
        weights = self._sample_weights
        return [weights is not None and weights.has(d) for d in range(len(self.mixture.sizes))]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ where the streams of two samplers differ."""
        return digest(sorted(self._parts().items()))

    def _parts(self) -> dict[str, str]:
        parts = self.mixture.parts()
        if self._sample_weights is not None:
            parts["sample_weights"] = self._sample_weights.digest
        if self.since:
            parts["since"] = str(self.since)
        return parts


def _lengths(sizes: ConcatDataset[Any] | Sequence[int]) -> list[int]:
    if isinstance(sizes, ConcatDataset):
        return [len(d) if isinstance(d, Sized) else 0 for d in sizes.datasets]
    return list(sizes)


def _tempered(lengths: Sequence[int], temperature: float) -> list[float | Fraction]:
    """Shares proportional to size ** (1 / temperature); an empty dataset gets none."""
    if math.isnan(temperature) or temperature <= 0:
        raise ValueError(f"temperature: {temperature} is not above 0")
    if temperature == 1:
        return [Fraction(n) for n in lengths]
    largest = max(lengths, default=1)
    return [(n / largest) ** (1 / temperature) if n > 0 else Fraction(0) for n in lengths]

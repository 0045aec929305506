"""Weights of single samples: how they are drawn, and the usual ways to make them from labels."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio
_MASK = (1 << 64) - 1
_NEVER = 1e-12  # the frequency of a class that only datasets with a share of 0 show


class SampleWeights:
    """Weights of the samples of several datasets, as one float64 array of running sums.

    Args:
        names: of the datasets.
        lengths: number of samples of each dataset.
        given: float weights >= 0: one array over the concatenation, or per dataset an array or None (all alike).

    Raises:
        ValueError: wrong length, or a weight that is negative, infinite or not a number.
    """

    def __init__(self, names: Sequence[str], lengths: Sequence[int], given: Any):
        self._names = names
        ends = np.cumsum(lengths)
        self._slices = [slice(int(e) - n, int(e)) for n, e in zip(lengths, ends)]
        self._sums = np.empty(int(ends[-1]), np.float64)
        parts = _per_dataset(given, self._slices, len(self._sums))
        self._has = [part is not None for part in parts]
        self.totals: list[float] = []
        for name, where, part in zip(names, self._slices, parts):
            weights = np.ones(where.stop - where.start) if part is None else np.asarray(part, np.float64)
            if weights.shape != (where.stop - where.start,):
                raise ValueError(f"{name}: sample_weights of shape {weights.shape} for {where.stop - where.start} samples")
            bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
            if bad.size:
                raise ValueError(f"{name}: weight {weights[bad[0]]} of sample {bad[0]} is not a finite number >= 0")
            np.cumsum(weights, out=self._sums[where])
            self.totals.append(float(self._sums[where.stop - 1]) if weights.size else 0.0)

    def check(self, shares: Sequence[float]) -> None:
        """Raise ValueError for a dataset that is to be drawn and whose weights are all 0."""
        for name, share, total in zip(self._names, shares, self.totals):
            if share and not total:
                raise ValueError(f"{name}: all its sample_weights are 0 and its share is not; give it a share of 0")

    def has(self, d: int) -> bool:
        """Whether dataset d has weights of its own."""
        return self._has[d]

    def pick(self, d: int, place: I64, draws: int, epoch: int, key: int) -> I64:
        """Systematic resampling: `draws` points at equal distance on the running sum, from an offset that moves by the
        golden ratio from epoch to epoch, so that over epochs too the visits follow the weights.

        Args:
            place: int64 `[m]`, which of the points, 0 <= place < draws.
            key: 64-bit key of the offset of epoch 0.

        Returns:
            int64 `[m]`: sample numbers; over all points each sample comes floor or ceil of its expected visits.
        """
        sums = self._sums[self._slices[d]]
        offset = ((key + epoch * _GOLDEN & _MASK) >> 11) / 2**53
        # in order, as the search then finds its way in the cache
        order = np.argsort(place)
        samples = np.empty(len(place), np.int64)
        samples[order] = np.searchsorted(sums, (place[order] + offset) * (self.totals[d] / draws), side="right")
        # a product rounded up to the total must not run past the last sample with a weight
        return np.minimum(samples, np.searchsorted(sums, sums[-1]))

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of all the weights."""
        return hashlib.blake2b(self._sums.tobytes() + bytes(self._has), digest_size=8).hexdigest()


def _per_dataset(given: Any, slices: Sequence[slice], length: int) -> list[Any]:
    """One array or None per dataset, from an array over the concatenation or from a list of them."""
    nested = isinstance(given, (list, tuple)) and any(w is None or np.ndim(w) for w in given)
    if nested:
        if len(given) != len(slices):
            raise ValueError(f"sample_weights: {len(given)} arrays for {len(slices)} datasets; give one per dataset")
        return list(given)
    flat = np.asarray(given, np.float64)
    if flat.shape != (length,):
        raise ValueError(f"sample_weights: shape {flat.shape} for {length} samples over {len(slices)} datasets")
    return [flat[s] for s in slices]


def class_balanced_weights(images: int, image: I64, labels: I64, threshold: float = 1e-3, frequency: F64 | None = None) -> F64:
    """Repeat factors by class frequency (Gupta, Dollár and Girshick, "LVIS", CVPR 2019, section 4.1).

    A class on the fraction f of the images gets `max(1, sqrt(threshold / f))`, an image the largest of its classes.

    Args:
        images: number of images.
        image: int64 `[n]`, image of each box.
        labels: int64 `[n]`, class of each box.
        threshold: frequency below which a class is repeated, above 0.
        frequency: float64 `[C]`, the fraction f of each class; default: counted in these images.

    Returns:
        float64 `[images]`, >= 1; 1 for an image without boxes. The same on every rank.
    """
    if not threshold > 0:
        raise ValueError(f"threshold: {threshold} is not above 0")
    out = np.ones(images)
    if len(labels):
        if frequency is None:
            frequency = np.bincount(np.unique(np.stack([image, labels]), axis=1)[1]) / images
        factor = np.sqrt(threshold / np.maximum(frequency, _NEVER))
        np.maximum.at(out, image, factor[labels])
    return out


def class_aware_weights(images: int, image: I64, labels: I64, frequency: F64) -> F64:
    """Weights with which every class is shown by equally many images (class-aware sampling: Shen, Lin and Huang, "Relay
    Backpropagation", ECCV 2016): an image weighs the sum of `1 / f` over its classes.

    Args:
        images: number of images.
        image, labels: int64 `[n]`, image and class of each class that an image shows, once.
        frequency: float64 `[C]`, the fraction f of the images that show each class.

    Returns:
        float64 `[images]`, >= 0; 0 for an image that shows none.
    """
    return np.bincount(image, 1 / np.maximum(frequency[labels], _NEVER), images).astype(np.float64)


def image_weights_from_class_ap(images: int, image: I64, labels: I64, ap: Any, count: Any = None) -> F64:
    """YOLO's image weights: images with many boxes of rare and badly detected classes come more often.

    A class c of C with n_c boxes weighs `w_c = C / n_c / sum(1 / n)`, and an image `w_c (1 - ap_c)^2 / C` summed over
    its boxes. All ranks get the same weights when they hold the same `ap`.

    Args:
        images: number of images.
        image: int64 `[n]`, image of each box.
        labels: int64 `[n]`, class of each box, below C.
        ap: float `[C]`, average precision of each class, 0..1; below 0 or nan (no truth to evaluate on) counts as 0.
        count: float `[C]`, n_c in whatever unit; default: counted in these boxes.

    Returns:
        float64 `[images]`, >= 0; 0 for an image without boxes.
    """
    value = np.clip(np.nan_to_num(np.asarray(ap, np.float64), nan=0.0), 0, 1)
    if len(labels) and int(np.max(labels)) >= len(value):
        raise ValueError(f"ap: {len(value)} values, and a box has class {int(np.max(labels))}")
    count = np.bincount(labels, minlength=len(value)) if count is None else np.asarray(count, np.float64)
    rarity = 1 / np.where(count > 0, count, 1)
    weight = rarity / np.sum(rarity) * (1 - value) ** 2
    return np.bincount(image, weights=weight[labels], minlength=images).astype(np.float64)


def balanced_weights(labels: Sequence[np.ndarray], balance: str) -> tuple[list[np.ndarray], int]:
    """Weights for the sampler, and the length of an epoch.

    Args:
        labels: per dataset int `[size]`, the class of each sample.
        balance: "oversample": an epoch in which each sample of the largest class is seen once; "undersample": in which each
            of the smallest is, and of the others a part (all of them over several epochs).

    Returns:
        Per dataset float64 `[size]`: one over the number of samples of the class in all datasets, and the epoch's samples.
    """
    counts = np.bincount(np.concatenate(labels))
    present = counts[counts > 0]
    epoch = len(present) * int(present.max() if balance == "oversample" else present.min())
    return [1.0 / counts[own] for own in labels], epoch

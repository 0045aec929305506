"""Weights of samples that let every class be drawn equally often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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

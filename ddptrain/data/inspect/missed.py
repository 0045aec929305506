"""Classes that a set of samples never shows though it should, going by other sets."""

from __future__ import annotations

import numpy as np

EXPECTED = 2.0
"""Samples with classes that a set never shows, by the rate of the others, from which on that is strange."""
DEVIATIONS = 2.0
"""By how many standard deviations they must be above what chance alone leaves out of a small part of the same images."""
FOLDERS = 3
"""Folders, and classes of each, that a line names."""


def strangely_missed(samples: int, shown: np.ndarray, elsewhere: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The classes that a set never shows, those first that it should show most often; none where that may be chance: of many
    rare classes, a small set always lacks some.

    Args:
        samples: how many the set has.
        shown: int `[C]`: how many of them show each class.
        elsewhere, of: int `[C]`: how many samples of others show each class, and of how many.
    """
    expected = samples * elsewhere / np.maximum(of, 1)
    chance = np.exp(-expected)
    usual = (expected * chance).sum() + DEVIATIONS * np.sqrt((expected**2 * chance * (1 - chance)).sum())
    missed = np.flatnonzero((shown == 0) & (expected > 0))
    if expected[missed].sum() < max(EXPECTED, usual):
        return missed[:0]
    return missed[np.argsort(-expected[missed], kind="stable")]

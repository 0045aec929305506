"""Average precision of parts of an evaluation: of each dataset, of each folder of images, and of objects by their size."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from ddptrain.metrics.arrays import mean_known
from ddptrain.metrics.coco import KEYS, values
from ddptrain.metrics.curves import of_images
from ddptrain.metrics.outcome import BoxOutcome
from ddptrain.metrics.precision import precision_at_recalls

Parts = dict[str, dict[str, float]]
"""The metrics of each part, by its name."""


def by_size(outcome: BoxOutcome) -> Parts:
    """Objects below 32², to 96², and above 96² square pixels; a detection that finds nothing counts where its own size is."""
    precision, recall = precision_at_recalls(outcome.matches)
    parts: Parts = {}
    for number, name in enumerate(("small", "medium", "large"), start=1):
        own = precision[..., number]
        objects = float(outcome.matches.counts[number].sum())
        of_size = {"AP": mean_known(own), "AP50": mean_known(own[0]), "AP75": mean_known(own[5])}
        parts[name] = {"objects": objects, **of_size, "AR": mean_known(recall[..., number])}
    return parts


def by_dataset(outcome: BoxOutcome) -> Parts:
    """Each validation dataset."""
    return _by_images(outcome, [outcome.datasets[number] for number in outcome.dataset.tolist()])


def by_folder(outcome: BoxOutcome) -> Parts:
    """Each folder of images below the root of its dataset, which is named where there are several."""
    folders = [os.path.dirname(name) or "." for name in outcome.images]
    if len(outcome.datasets) > 1:
        folders = [f"{outcome.datasets[d]}: {folder}" for d, folder in zip(outcome.dataset.tolist(), folders)]
    return _by_images(outcome, folders)


def _by_images(outcome: BoxOutcome, names: list[str]) -> Parts:
    numbers, parts = np.array([*map(list(dict.fromkeys(names)).index, names)]), {}
    for number, name in enumerate(dict.fromkeys(names)):
        here = numbers == number
        matches = of_images(outcome.matches, here)
        own = values(precision_at_recalls(matches))
        counts = {"images": float(here.sum()), "objects": float(matches.counts[0].sum())}
        parts[name] = counts | {key: own[key] for key in KEYS}
    return parts


SPLITS: dict[str, Callable[[BoxOutcome], Parts]] = {"dataset": by_dataset, "folder": by_folder, "size": by_size}
"""What an evaluation can be split by."""

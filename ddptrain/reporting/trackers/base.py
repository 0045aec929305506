"""`Tracker`: what TensorBoard, Weights & Biases and MLflow have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_CLASSES = 20
"""Classes that have a curve of precision over recall of their own, the first ones."""
KINDS = ("train", "val")
"""Of numbers: of a logging interval, of an evaluation."""


def kind_of(tags: Iterable[str]) -> str:
    """The kind of the numbers that have these tags."""
    return "val" if next(iter(tags), "").startswith("val/") else "train"


class Counts(NamedTuple):
    """What is right and wrong from each of n thresholds on, evenly spaced from 0 to 1; all int64 `[n]`.

    Attributes:
        hits: true positives; alarms: false positives; misses: false negatives; rest: true negatives, 0 where there are none
            (boxes).
    """

    hits: NDArray[np.int64]
    alarms: NDArray[np.int64]
    misses: NDArray[np.int64]
    rest: NDArray[np.int64]


class Watched(NamedTuple):
    """What is watched of an evaluation beside its numbers, by name; pictures are uint8 `[H, W, 3]` RGB."""

    curves: Mapping[str, Counts]
    pictures: Mapping[str, np.ndarray]


class Tracker:
    """Every call belongs to a logging interval or an evaluation; none is meant for every step. Tags are paths whose first
    part is a folder: `train`, `val`, `data`, `optim`, `time`, `system`. This one keeps nothing."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One point of each curve, plain floats by tag."""

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """A picture, uint8 `[H, W, 3]` RGB."""

    def text(self, tag: str, text: str, step: int) -> None:
        """Markdown."""

    def pr_curve(self, tag: str, counts: Counts, step: int) -> None:
        """A curve of precision over recall."""

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """What the run is made with, numbers and text by dotted key, at its start with no metrics, and at its end with those of
        its last evaluation by tag."""

    def close(self, finished: bool = False) -> None:
        """End; `finished`: the run has reached its end."""


class Service(Tracker):
    """One that keeps runs of its own, made with the run's folder and the id of the run that is resumed, None for a new one.

    Attributes:
        id: of its run, to resume it.
        sent: the last step of each kind of numbers, `train` and `val`, that its run holds.
    """

    id: str
    sent: dict[str, int]

"""Outcomes of evaluations that nobody has trained for: detectors of a chosen quality on the same scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
from metric_worlds import truth

from ddptrain.metrics.arrays import DetectionArrays
from ddptrain.metrics.coco import summarize
from ddptrain.metrics.matching import match
from ddptrain.metrics.outcome import BoxOutcome, CountOutcome

CLASSES = ("car", "bus")


def boxes(quality: float, seed: int, images: int = 60, scenes: int = 0, **about: Any) -> BoxOutcome:
    """A detector that finds that part of the objects, as often adds one, and places its boxes alike; `scenes` is the truth's
    seed, `seed` the detector's."""
    r = np.random.default_rng((scenes, 1))
    rows = []
    for image in range(images):
        for x, y in r.uniform(0, 200, (int(r.integers(1, 7)), 2)):
            rows.append((image, (x, y, x + 30, y + 30), int(r.integers(2))))
    world = truth(rows, images, 2)
    r = np.random.default_rng((seed, scenes, 2))
    kept = r.random(len(rows)) < quality
    image, moved = world.image_of_boxes(), world.boxes + r.normal(0, 2, world.boxes.shape)
    alarms = r.random(len(rows)) < 1 - quality
    found = DetectionArrays(
        np.concatenate([image[kept], image[alarms]]),
        np.concatenate([moved[kept], moved[alarms] + 60]).astype(np.float32),
        np.concatenate([r.uniform(0.3, 1, kept.sum()), r.uniform(0, 0.8, alarms.sum())]).astype(np.float32),
        np.concatenate([world.labels[kept], world.labels[alarms]]),
    )
    matches = match(world, found)
    return BoxOutcome(
        classes=CLASSES,
        datasets=("city",),
        dataset=np.zeros(images, np.int64),
        images=tuple(f"{i}.jpg" for i in range(images)),
        metrics=summarize(["city"], [matches], CLASSES),
        about={"step": 100, "weights": "best", **about},
        matches=matches,
    )


def counts(right: np.ndarray, real: np.ndarray, answers: np.ndarray, metrics: dict[str, float]) -> CountOutcome:
    """An outcome of counts `[I, C]` each."""
    images, classes = right.shape
    return CountOutcome(
        classes=tuple(f"c{k}" for k in range(classes)),
        datasets=("all",),
        dataset=np.zeros(images, np.int64),
        images=tuple(f"{i}.png" for i in range(images)),
        metrics=metrics,
        about={"step": 1, "weights": "last"},
        names=("accuracy", "f1"),
        counts=np.stack([right, real, answers]),
    )

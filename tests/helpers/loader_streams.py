"""Streams of batches without files, from loaders as a run makes them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ddptrain.data.loading.batches import train_loader
from ddptrain.data.loading.loader import Loader
from ddptrain.data.samples.detection import DetectionSamples
from ddptrain.errors import UserError
from ddptrain.structures import Batch, Sample, SampleKey


def keys_of(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two datasets in turns, in some order."""
    return positions % 2, positions * 7 % 24


class Numbers:
    """Samples without files: the picture is the position's last byte. Some positions have something to tell."""

    def __init__(self, at: int = -1, action: str = "") -> None:
        self.at, self.action = at, action

    def __getitem__(self, key: SampleKey) -> Sample:
        if key.position == self.at:
            self.act()
        nothing = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}
        no_tiles = {"tiles": np.zeros((0, 3, 3), np.float32), "tile_windows": np.zeros((0, 4), np.float32)}
        no_tiles["tile_annotated"] = np.zeros((0, 1), bool)
        return Sample(
            key=key,
            image=np.full((4, 4, 3), key.position % 256, np.uint8),
            targets={**nothing, "ignore_boxes": np.zeros((0, 4), np.float32), **no_tiles},
            annotated=np.ones(1, bool),
            to_native=np.eye(3, dtype=np.float32)[:2],
            native_size=(4, 4),
        )

    def act(self) -> None:
        if self.action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "hang":
            time.sleep(600)
        if self.action == "doze":
            return time.sleep(0.6)
        if self.action == "refuse":
            raise UserError("a.jpg: the disk is gone")
        raise KeyError("a bug")

    def collate(self, samples: Sequence[Sample]) -> Batch:
        return DetectionSamples.collate(samples)


def stream(samples: Any = None, **changes: Any) -> Loader:
    options = {"position": 0, "steps": None, "global_batch": 8, "micro_batch": 8, "rank": 0, "world_size": 1, "workers": 0}
    return train_loader(samples or Numbers(), keys_of, **{**options, **changes})


def assert_equal(a: Batch, b: Batch) -> None:
    for name in ("images", "keys", "annotated", "to_native", "native_size"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert getattr(a, name).dtype == getattr(b, name).dtype, name
    assert a.targets.keys() == b.targets.keys()
    for name in a.targets:
        assert torch.equal(a.targets[name], b.targets[name]), name
    assert a.replaced == b.replaced

"""Multi-scale training: the batches of a step in another size, the same for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ddptrain.models.test_time import resized
from ddptrain.seeding import rng
from ddptrain.structures import Batch


def side_of_step(sides: Sequence[int], seed: int, number: int) -> int:
    """The side of the input in the step with a number, one of some, in pixels."""
    return sides[int(rng(seed, number, "multi_scale").integers(len(sides)))] if len(sides) > 1 else sides[0]


def resize(batch: Batch, side: int) -> Batch:
    """A batch of square images with another side, and all that is told in its pixels; the batch itself where it has that side
    already. Runs on the device of the batch."""
    factor = side / batch.images.shape[-1]
    if factor == 1:
        return batch
    back = torch.tensor([1 / factor, 1 / factor, 1.0], device=batch.images.device)
    targets = batch.targets | {name: batch.targets[name] * factor for name in ("boxes", "ignore_boxes", "tile_windows")}
    targets["tiles"] = batch.targets["tiles"] * back
    return replace(
        batch, images=resized(batch.images, (side, side)), targets=targets, to_native=batch.to_native * back.to(batch.to_native)
    )

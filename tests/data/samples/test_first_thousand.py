"""The first thousand samples of every task are the same bytes, whoever makes them: any workers, ranks and cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from torch import Tensor

from ddptrain.config import load_config
from ddptrain.data.loading.batches import train_loader
from ddptrain.data.packed.build import Talk
from ddptrain.structures import Batch
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task
from ddptrain.tasks.pixels import cache_pixels

EVERY = "rotate: 9, rot90: 0.5, perspective: 0.2, grey: 0.3, blur: 0.3, jpeg: 0.3, cutout: 0.5"
MIXED = {
    "detection": ("data.augment={mosaic: 0.5, mixup: 0.5, rotate: 9, close_epochs: 0}",),
    "detection, all of them": (
        f"data.augment={{{EVERY}, mosaic: 0.3, mosaic9: 0.3, mixup: 0.3, cutmix: 0.3, copy_paste: 0.7, close_epochs: 0}}",
        "data.image_size=32",
    ),
    "classification": (),  # mixes in its small run
    "segmentation": (f"data.augment={{{EVERY}}}",),
    "interaction": (),
}
GLOBAL, MICRO = 24, 4
STEPS = 42  # 1008 samples


class Made(NamedTuple):
    """How samples are made."""

    workers: int
    ranks: int
    cache: str


ONE = Made(0, 1, "none")
CASES = (Made(1, 2, "none"), Made(0, 3, "disk"), Made(4, 1, "ram"))


def tensors(batch: Batch) -> Iterator[Tensor]:
    yield from (batch.images, batch.keys, batch.annotated, batch.to_native, batch.native_size)
    yield from (value for _, value in sorted(batch.targets.items()))


def digests(task: Task, made: Made) -> list[str]:
    """Of every micro batch of the run, in the order of their positions."""
    found = []
    for rank in range(made.ranks):
        with train_loader(
            task.train, task.sampler.keys, position=0, steps=STEPS, global_batch=GLOBAL, micro_batch=MICRO, rank=rank,
            world_size=made.ranks, workers=made.workers,
        ) as loader:  # fmt: skip
            for batch in loader:
                hashed = hashlib.sha256(repr(batch.replaced).encode())
                for tensor in tensors(batch):
                    hashed.update(f"{tensor.dtype}{tensor.shape}".encode() + tensor.contiguous().numpy().tobytes())
                found.append((int(batch.keys[0, 0]), hashed.hexdigest()))
    return [digest for _, digest in sorted(found)]


@pytest.mark.parametrize("name", MIXED)
def test_the_first_thousand_samples(name: str, small_config: Callable[[str], Path]) -> None:
    config = load_config(str(small_config(name.partition(",")[0])), [*MIXED[name], f"train.steps={2 * GLOBAL * STEPS // 12}"])
    plain = build_task(config)
    expected = digests(plain, ONE)
    assert len(set(expected)) == STEPS * GLOBAL // MICRO
    for made in CASES:
        task = plain
        if made.cache != "none":
            task = build_task(config)
            cache_pixels(task, made.cache, Talk(lambda line: None, lambda line: None))
        assert digests(task, made) == expected, made

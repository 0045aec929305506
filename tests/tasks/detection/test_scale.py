"""Multi-scale training: a size for each step, and everything in a batch goes with its images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ddptrain.config import load_config
from ddptrain.config.detection_augment import DetectionAugment
from ddptrain.data.augment.partners import refuse_few
from ddptrain.errors import UserError
from ddptrain.models.yolo.loss import _in_tiles
from ddptrain.structures import Batch, SampleKey
from ddptrain.tasks.build import build_task
from ddptrain.tasks.detection.scale import resize, side_of_step


def batch(config: Path, *overrides: str) -> Batch:
    task = build_task(load_config(str(config), ["data.augment={mosaic: 1, close_epochs: 0, rotate: 20}", *overrides]))
    keys = [SampleKey(*map(int, key)) for key in zip(range(6), *task.sampler.keys(np.arange(6)))]
    made: Batch = task.train.collate([task.train[key] for key in keys])  # type: ignore[attr-defined]
    return made


def test_the_size_is_a_function_of_seed_and_step() -> None:
    sides = range(320, 961, 32)
    drawn = [side_of_step(sides, 3, number) for number in range(2000)]
    assert drawn == [side_of_step(sides, 3, number) for number in range(2000)]
    assert drawn != [side_of_step(sides, 4, number) for number in range(2000)]
    counts = [drawn.count(side) for side in sides]
    assert min(counts) > 60  # 95 each
    assert max(counts) < 135


def test_boxes_regions_and_tiles_go_with_the_pixels(small_config: Callable[[str], Path]) -> None:
    one = batch(small_config("detection"))
    assert resize(one, 64) is one
    for side, factor in ((32, 0.5), (96, 1.5)):
        other = resize(one, side)
        assert other.images.shape == (6, 3, side, side)
        assert other.images.dtype == torch.uint8
        for name in ("boxes", "ignore_boxes", "tile_windows"):
            torch.testing.assert_close(other.targets[name], one.targets[name] * factor)
        points = torch.rand(200, 2) * 64
        inside = _in_tiles(points, one.targets["tiles"], one.targets["tile_windows"])
        assert 0.05 < inside.float().mean() < 0.6
        again = _in_tiles(points * factor, other.targets["tiles"], other.targets["tile_windows"])
        assert (inside != again).float().mean() < 0.01
        for name in ("labels", "image", "tile_annotated", "tile_image"):
            assert torch.equal(other.targets[name], one.targets[name])


def test_the_pixels_are_means_where_they_shrink_to_half() -> None:
    images = torch.arange(4 * 64 * 64 * 3).remainder(251).to(torch.uint8).view(4, 3, 64, 64)
    none = torch.zeros(0, 4)
    targets = {"boxes": none, "ignore_boxes": none, "tile_windows": none, "tiles": torch.zeros(0, 3, 3)}
    one = Batch(images, torch.zeros(4, 3), torch.ones(4, 1), targets, torch.eye(3)[:2].repeat(4, 1, 1), torch.full((4, 2), 64))
    small = resize(one, 32)
    point = torch.tensor([10.0, 20.0, 1.0])
    back = torch.tensor([5.0, 10.0, 1.0])
    torch.testing.assert_close(small.to_native @ back, one.to_native @ point)


@pytest.mark.parametrize(("augment", "images"), [(DetectionAugment(mosaic=0.1), 3), (DetectionAugment(mosaic9=0.1), 8)])
def test_a_mosaic_of_too_few_images_is_refused(augment: DetectionAugment, images: int) -> None:
    refuse_few(augment, images + 1)
    refuse_few(DetectionAugment(mixup=1), 1)
    with pytest.raises(UserError, match=f"a mosaic combines {images + 1} images, but data.train has only {images}; add"):
        refuse_few(augment, images)


def test_memory_is_estimated_at_the_largest_size(small_config: Callable[[str], Path]) -> None:
    task = build_task(load_config(str(small_config("detection")), ["data.augment.multi_scale=[32, 128]"]))
    made = task.train.collate([task.train[SampleKey(0, 0, 0)]])
    assert task.at_largest(made).images.shape[-2:] == (128, 128)
    assert any("multi-scale: steps of 32 to 128 pixels" in note for note in task.notes)

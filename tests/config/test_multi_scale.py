"""Which sizes multi-scale training draws from, and which it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ddptrain.config import load_config
from ddptrain.config.multi_scale import MultiScale, input_sides
from ddptrain.errors import UserError


@pytest.mark.parametrize(
    ("multi_scale", "image_size", "stride", "sides"),
    [
        (0.0, 640, 32, [640]),
        (0.1, 640, 32, [576, 608, 640, 672, 704]),
        (0.5, 64, 32, [32, 64, 96]),
        (0.3, 64, 16, [48, 64, 80]),
        ((32, 96), 640, 32, [32, 64, 96]),
        ((64, 192), 128, 64, [64, 128, 192]),
    ],
)
def test_the_sizes_are_all_multiples_in_the_range(
    multi_scale: MultiScale, image_size: int, stride: int, sides: list[int]
) -> None:
    assert list(input_sides(multi_scale, image_size, stride)) == sides


@pytest.mark.parametrize("stride", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("image_size", [32, 64, 96, 160, 320, 416, 640, 1280])
def test_the_range_that_is_proposed_is_allowed(image_size: int, stride: int) -> None:
    with pytest.raises(ValueError, match="such as") as e:
        input_sides((image_size + 1, image_size + 1), image_size, stride)
    low, high = json.loads(str(e.value).rpartition("such as ")[2])
    sides = input_sides((low, high), image_size, stride)
    assert (sides[0], sides[-1]) == (low, high)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["data.augment.multi_scale=[320, 650]", "model.strides=[16, 32]"],
            "data.augment.multi_scale: 650 pixels: must be two multiples of 32",
        ),
        (
            ["data.augment.multi_scale=[16, 64]", "model.strides=[16, 32]"],
            "data.augment.multi_scale: 16 pixels: must be two multiples of 32",
        ),
        (["data.augment.multi_scale=[96, 64]"], "from 96 to 64 pixels there is only one size or none"),
        (
            ["data.augment.multi_scale=0.7"],
            "0.7 of data.image_size=64 goes down to 19.2 pixels; sizes are ≥ 32, so give 0.5",
        ),
        (
            ["data.augment.multi_scale=0.2", "model.strides=[16, 32]"],
            "from 64 to 64 pixels there is only one size or none; sizes are multiples of 32",
        ),
        (["data.augment.multi_scale=1.0"], "must be a number ≥ 0 and < 1"),
        (["data.augment.multi_scale=[32, 64, 96]"], "multi_scale: [32, 64, 96]: must be a number or a list of at most 2 items"),
        (["data.augment.multi_scale=[64, 96]", "model.strides=[16, 32, 64]"], "96 pixels: must be two multiples of 64"),
        (["data.augment={mosaic: 0.7, mosaic9: 0.5}"], "mosaic and mosaic9: 0.7 + 0.5 is more than 1"),
        (["data.augment={mixup: 0.7, cutmix: 0.5}"], "mixup and cutmix: 0.7 + 0.5 is more than 1"),
        (["data.augment={mosaic9: 0.1, pool: 8}"], "pool: 8 is too few for a mosaic of 9 images; must be ≥ 9, or null"),
        (
            ["data.augment={blur: 0.1, blur_sigma: [3, 1]}"],
            "blur_sigma: [3, 1]: must be two numbers from 0.1 to 20, the lower one first",
        ),
        (["data.augment={jpeg: 0.1, jpeg_quality: [0, 10]}"], "jpeg_quality: [0, 10]: must be two numbers from 1 to 100"),
        (["data.augment.blur_sigma=[1, 3]"], "has no effect here, only data.augment.blur above 0 uses it"),
        (["data.augment.perspective=0.5"], "data.augment.perspective: 0.5: must be a number ≤ 0.4"),
        (
            ["model={name: fcos_resnet50_fpn}", "data.augment.multi_scale=0.5"],
            "data.augment.multi_scale: 0.5 has no effect here, only model.name=yolo",
        ),
    ],
)
def test_what_is_refused_in_one_line(small_config: Callable[[str], Path], overrides: list[str], line: str) -> None:
    with pytest.raises(UserError) as e:
        load_config(str(small_config("detection")), overrides)
    assert line in str(e.value)
    assert "\n" not in str(e.value)

"""`ddptrain augment`: a picture of every augmentation that the config's task has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddptrain.cli import main
from ddptrain.commands.augment import CHANCES, RANGES, STRIP, rows_of
from ddptrain.config import load_config
from ddptrain.reporting.pictures import load

BESIDE = {"blur_sigma", "jpeg_quality", "close_epochs", "pool", "mix_alpha", "copy_paste_objects", "multi_scale"}
"""Keys that say how another one works, and the one that is of steps, not of samples."""


@pytest.mark.parametrize("task", ["detection", "classification", "segmentation", "interaction"])
def test_every_augmentation_of_the_task_has_a_row(small_config: Callable[[str], Path], task: str, tmp_path: Path) -> None:
    config, out = str(small_config(task)), tmp_path / "a.png"
    augment = load_config(config).data.augment
    assert set(type(augment).model_fields) - BESIDE <= {*RANGES, *CHANCES}
    rows = rows_of(augment)
    assert len(rows) == 1 + len(set(type(augment).model_fields) - BESIDE)
    assert main(["augment", config, "--grid", "--samples", "2", "--out", str(out)]) == 0
    picture = load(out)
    height = 320 + STRIP
    assert picture.shape[0] == (len(rows) + 2) * height
    shown = picture.reshape(len(rows) + 2, height, -1)[:, STRIP:]
    same = [name for name, row in zip(rows, shown[2:]) if np.array_equal(row, shown[0])]
    assert same == []


def test_without_the_grid_what_the_config_says_stands_below_the_image(small_config: Callable[[str], Path]) -> None:
    config = small_config("detection")
    out = config.parent / "a.jpg"
    assert main(["augment", str(config), "data.augment.vflip=1", "--out", str(out)]) == 0
    assert load(out).shape[0] == 2 * (320 + STRIP)
    assert main(["augment", str(config), "--out", str(out.with_suffix(".gif"))]) == 2

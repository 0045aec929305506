"""`ddptrain augment`: what the augmentation of a config does to its training samples, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ddptrain.config import load_config
from ddptrain.config.data import AugmentConfig
from ddptrain.data.augment.partners import Partners
from ddptrain.data.samples.base import ImageSamples
from ddptrain.errors import UserError
from ddptrain.reporting.pictures import grid, save, tag
from ddptrain.structures import SampleKey
from ddptrain.system.printable import counted, say
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task

RANGES: dict[str, float] = {
    "scale": 0.5, "translate": 0.2, "rotate": 20.0, "shear": 15.0, "perspective": 0.3, "hsv_h": 0.1, "hsv_s": 0.7, "hsv_v": 0.4,
}  # fmt: skip
"""Shown with the config's own value where that is not 0, else with this one."""
CHANCES: dict[str, float] = {
    "hflip": 0.5, "vflip": 0.5, "rot90": 0.75, "crop": 1.0, "grey": 0.3, "blur": 0.3, "jpeg": 0.3, "cutout": 0.3, "mixup": 0.3,
    "cutmix": 0.3, "mosaic": 0.4, "mosaic9": 0.4, "copy_paste": 0.5,
}  # fmt: skip
"""Shown with certainty; all together with these probabilities."""
SIDE = 320
"""Height of a picture, in pixels."""
STRIP = 26
"""Height of the line above a row, in pixels."""


def show_augmentation(config: str, overrides: Sequence[str], out: Path, every: bool, count: int) -> int:
    """Write the picture: a row without any augmentation and one with the config's; on demand a row for each augmentation
    alone, and one for all of them together. Each column is one sample of the stream, the first ones of the run.

    Args:
        config: path of the run's config.
        overrides: changes to it.
        out: `.png` or `.jpg`.
        every: show each augmentation.
        count: number of columns.

    Raises:
        UserError: the samples are those of a task of the user's own, without the package's augmentation.
    """
    run = load_config(config, overrides)
    data = run.data.model_copy(update={"augment": _unmixed(run.data.augment)})
    task = build_task(run.model_copy(update={"data": data}))
    samples: Any = task.train
    if not isinstance(samples, ImageSamples):
        raise UserError(f"augment: {run.task} is a task of your own, whose samples do not use the package's augmentation")
    if hasattr(samples, "partners"):
        partners: Any = Partners(task.sampler.keys, task.sampler.mixture.samples_per_epoch, float("inf"))
        samples = replace(samples, **{"partners": partners})
    rows = {"none": changed(run.data.augment, {}), "as the config says": run.data.augment}
    if every:
        rows |= rows_of(run.data.augment)
    keys = [SampleKey(i, *map(int, place)) for i, place in enumerate(zip(*task.sampler.keys(np.arange(count))))]
    strips = [_row(task, replace(samples, augment=augment), keys, name) for name, augment in rows.items()]
    width = max(strip.shape[1] for strip in strips)
    sheet = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    save(out, np.concatenate(sheet))
    say(f"{counted(len(rows), 'row')} of {counted(count, 'sample')} in {out}")
    return 0


def _unmixed(augment: AugmentConfig) -> AugmentConfig:
    """The section without what mixes images, which is shown whatever the length of the run and the number of images."""
    mixing = [key for key in ("mosaic", "mosaic9", "mixup", "cutmix", "copy_paste") if key in type(augment).model_fields]
    return augment.model_copy(update=dict.fromkeys(mixing, 0.0))


def changed(augment: AugmentConfig, values: Mapping[str, float]) -> AugmentConfig:
    """The section with some values, and without any other augmentation."""
    known = [key for key in (*RANGES, *CHANCES) if key in type(augment).model_fields]
    return augment.model_copy(update={key: type(getattr(augment, key))(values.get(key, 0.0)) for key in known} | {"pool": None})


def rows_of(augment: AugmentConfig) -> dict[str, AugmentConfig]:
    """Each augmentation that the task has, alone, and all together, by what is written above it."""
    fields = type(augment).model_fields
    ranges = {key: getattr(augment, key) or value for key, value in RANGES.items() if key in fields}
    chances = {key: value for key, value in CHANCES.items() if key in fields}
    rows = {f"{key}: {value:g}": changed(augment, {key: value}) for key, value in ranges.items()}
    rows |= {key: changed(augment, {key: 1.0}) for key in chances}
    return rows | {"all together": changed(augment, ranges | chances)}


def _row(task: Task, samples: ImageSamples[Any], keys: Sequence[SampleKey], name: str) -> np.ndarray:
    """The samples of one row under its name, uint8 RGB."""
    shown = []
    for key in keys:
        picture = task.view.picture(samples[key])
        width = max(1, round(picture.shape[1] * SIDE / picture.shape[0]))
        shown.append(cv2.resize(picture, (width, SIDE), interpolation=cv2.INTER_AREA))
    pictures = grid(shown, columns=len(shown))
    strip = np.full((STRIP, pictures.shape[1], 3), 255, np.uint8)
    tag(strip, name, 2, STRIP - 4, (255, 255, 255))
    return np.concatenate([strip, pictures])

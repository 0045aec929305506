"""Evaluation in windows: AP in pixels of the file, the same as of whole images where the same is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ddptrain.config import load_config, resolve
from ddptrain.config.detection import DetectionAugment
from ddptrain.config.text import parse_yaml
from ddptrain.config.tiles import BoxWindows
from ddptrain.data.samples.detection import DetectionSamples
from ddptrain.data.tables.windows import cut_images
from ddptrain.distributed import discover
from ddptrain.engine.evaluate import evaluate
from ddptrain.errors import UserError
from ddptrain.models.detector import Judged
from ddptrain.structures import Batch, Detections, SampleKey
from ddptrain.tasks.build import build_task
from ddptrain.tasks.detection.task import DetectionTask

ALONE = discover("cpu")


class Truthful:
    """A detector that knows the truth of what it is shown, and nothing else."""

    def detect(self, model: nn.Module, batch: Batch) -> Sequence[Detections]:
        t, out = batch.targets, []
        for number in range(len(batch)):
            own = t["image"] == number
            out.append(Detections(t["boxes"][own], torch.ones(int(own.sum())), t["labels"][own]))
        return out

    def judge(self, model: nn.Module, batch: Batch) -> Judged:
        count = torch.bincount(batch.targets["image"], minlength=len(batch)).float()
        return Judged(self.detect(model, batch), {"box": count * 2}, count)


def scored(task: DetectionTask) -> dict[str, float]:
    detector: Any = Truthful()
    task.detector = detector
    return evaluate(task, nn.Identity(), ALONE).metrics


@pytest.mark.parametrize(
    "tiles", ["size: 96", "size: 64, overlap: 0.5, scales: [1.0, 0.4], merge: wbf", "size: 80, whole: true", "size: 400"]
)
def test_the_truth_window_by_window_has_an_ap_of_1(config: Path, tiles: str) -> None:
    settings = [f"eval.tiles={{{tiles}}}", "eval.nms_iou=0.9"]
    task = build_task(load_config(config, settings))
    assert isinstance(task, DetectionTask)
    metrics = scored(task)
    assert (metrics["AP"], metrics["AP75"], metrics["tiles"]) == (1.0, 1.0, float(tiles.split()[1].rstrip(",")))
    assert metrics["loss"] == 2.0
    other = build_task(load_config(config, [*settings, "eval.batch=3"]))
    assert isinstance(other, DetectionTask)
    np.testing.assert_equal(scored(other), metrics)


def test_it_holds_for_visdrone_as_it_is(data_root: Path) -> None:
    """Small and crowded objects, 2 scales, windows of 320: nothing is lost and nothing is found twice."""
    dataset = f"{{name: v, format: visdrone, root: {data_root}/visdrone_native, split: train}}"
    text = f"""
classes: [pedestrian, people, bicycle, car, van, truck, tricycle, awning-tricycle, bus, motor]
data: {{train: [{dataset}], val: [{dataset}], image_size: 320, workers: 0}}
eval: {{tiles: {{overlap: 0.3, scales: [1.0, 0.5]}}, nms_iou: 0.95, max_detections: 2000, coco_max_detections: 2000}}
"""
    task = build_task(resolve(parse_yaml(text, "v")))
    assert isinstance(task, DetectionTask)
    assert scored(task)["AP"] == 1.0


def test_windows_are_forwarded_in_batches_as_training_sees_them(config: Path) -> None:
    tiles = "{size: 96, overlap: 0.25, keep: 0.5}"
    task = build_task(load_config(config, [f"eval.tiles={tiles}", "eval.batch=4"]))
    assert isinstance(task, DetectionTask)
    key = SampleKey(0, 0, 1)
    sample = task.val_samples[key]
    assert [len(part) for part in sample.windows] == [4, 4, 1]
    assert sample.image.shape == (64, 64, 3)
    still = DetectionAugment(scale=0, translate=0, hflip=0, hsv_h=0, hsv_s=0, hsv_v=0)
    table, cutter = task.val_samples.tables[0], task.cutter
    assert cutter is not None
    windows = cut_images(table, BoxWindows(size=96, overlap=0.25, keep=0.5), 64)
    cut = DetectionSamples([table], task.val_samples.annotated[:1], 64, still, tiles=[windows])
    of_image = np.flatnonzero(windows.image == 1)
    seen = torch.cat([part.images for part in sample.windows])
    for number, index in enumerate(of_image.tolist()):
        tile = cut[SampleKey(0, 0, index)]
        np.testing.assert_array_equal(seen[number].permute(1, 2, 0).numpy(), tile.image)
        np.testing.assert_array_equal(torch.cat([p.to_native for p in sample.windows])[number].numpy(), tile.to_native)


def test_what_has_no_effect_beside_windows_is_refused(config: Path) -> None:
    with pytest.raises(UserError, match=r"eval.rectangular: true has no effect here, only an evaluation of whole images"):
        load_config(config, ["eval.tiles={size: 64}", "eval.rectangular=true"])
    with pytest.raises(UserError, match=r"eval.nms_iou: 0.4 has no effect here, only eval.nms=hard, or eval.tiles, uses it"):
        load_config(config, ["eval.nms=soft", "eval.nms_iou=0.4"])
    assert load_config(config, ["eval.nms=soft", "eval.nms_iou=0.4", "eval.tiles.size=64"])
    assert load_config(config, ["eval.soft_nms_sigma=0.4", "eval.tiles.merge=soft"])
    with pytest.raises(UserError, match=r"eval.tiles.overlap: 1: must be a number ≤ 0.9"):
        load_config(config, ["eval.tiles.overlap=1"])

"""No loss makes the host wait for the device, and none sends it anything: on fake tensors of a GPU."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from host_waits import HostWaits, needs_fakes, on_fake_gpu, put_on_fake_gpu
from small_runs import RUNS, write_config
from support import equal
from torch._subclasses.fake_tensor import FakeTensorMode

from ddptrain.config import load_config
from ddptrain.structures import Batch, SampleKey
from ddptrain.tasks.build import build_task


def fake(batch: Batch, mode: FakeTensorMode) -> Batch:
    return replace(batch.map(lambda t: on_fake_gpu(t, mode)), targets=on_fake_gpu(batch.targets, mode))


PEOPLE = "classes=[car, bus, pedestrian, people]"
IGNORED = "[bicycle, van, truck, tricycle, awning-tricycle, motor]"
MOSAIC = (
    PEOPLE, *(f"data.{part}.0.{key}" for part in ("train", "val") for key in ("drop=[]", f"ignore={IGNORED}")),
    "data.augment={mosaic: 1, mixup: 0.5, close_epochs: 0}",
)  # fmt: skip
"""Ignore regions, and parts of images in which fewer classes are known."""


@needs_fakes
@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        ("detection", ("loss.size_weights={small: 2}",)),
        ("detection", MOSAIC),
        ("detection", ("loss.class_weights=balanced", "loss.cls=[1, 2]", "loss.box_loss=nwd", "loss.cls_pw=2")),
        ("detection", ("loss.cls_loss=varifocal", "loss.box_loss=eiou", "loss.label_smoothing=0.1")),
        ("detection", ("loss.assigner=simota", "loss.assign_by=nwd")),
        ("detection", ("loss.assigner=rule",)),
        ("detection", ("model.head=dual",)),
        ("detection", ("model.head=anchor_based", "loss.obj_pw=2", "loss.obj=[1, 2]")),
        ("detection", (*MOSAIC, "model.head=anchor_based", "loss.assigner=simota")),
        ("segmentation", ("loss.class_weights=balanced",)),
        ("classification", ("loss.class_weights=balanced", "loss.name=focal")),
        ("interaction", ()),
    ],
)
def test_a_loss_waits_for_nothing(tmp_path: Path, task: str, overrides: tuple[str, ...]) -> None:
    """Seen in the second batch, since weights of classes travel once a run. Without a driver nothing runs backward."""
    RUNS[task].write(tmp_path)
    built = build_task(load_config(str(write_config(task, tmp_path, tmp_path)), [*overrides, "data.workers=0"]))
    batch = built.train.collate([built.train[SampleKey(i, i % len(built.config.data.train), i)] for i in range(4)])
    assert MOSAIC[0] not in overrides or (len(batch.targets["ignore_boxes"]) and len(batch.targets["tiles"]))
    model = built.build_model().train()
    before = batch.map(torch.clone)
    built.loss(model, batch)
    equal(asdict(batch), asdict(before))  # a batch may be computed with again: a step is launched anew after one without update
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    on_gpu = fake(batch, mode)
    put_on_fake_gpu(model, mode)
    with mode:
        first = built.loss(model, on_gpu)
        assert first.total.device.type == "cuda"
        with HostWaits() as waits:
            built.loss(model, on_gpu)
    assert not waits.lines
